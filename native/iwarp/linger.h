/**
 * A last word to the peer: a socket whose connection has ended, but whose last bytes (Terminate, MPA reject) the peer is to get. A
 * socket that is closed with unread bytes sends a reset, which would overtake them; so it is read to its end first, within bounds.
 */
#pragma once

#include "socket_loop.h"

namespace iserfs::rdma::iwarp {

/** Tells the peer that nothing more comes, and closes when it has, or after a second. Loop's thread. */
void closeAfterPeer(SocketLoop& loop, Descriptor socket);

}  // namespace iserfs::rdma::iwarp
