/**
 * Fuzzes the receiving half of a connection. The last bytes of an input say how: with or without CRC, how the stream is cut, and
 * whether the rest is the stream itself (as the seeds are) or a recipe for frames that are well-formed but for what the recipe
 * changes, which leads deeper. The same stream goes to two receivers, to one in a piece and to the other in portions by way of
 * `buffers` and `filled`: they must come to the same end, and neither may touch memory that was not granted.
 *
 * The seeds are frames of Linux siw, those of test/vectors/iwarp-siw.hex, each with the bytes behind it that say how it comes.
 */
#include <fuzzer/FuzzedDataProvider.h>

#include <algorithm>
#include <cstring>

#include "guarded_host.h"
#include "iwarp/crc32c.h"

namespace {

using iserfs::fuzz::GuardedHost;
using iserfs::rdma::iwarp::Receiver;
using namespace iserfs::rdma;

using Bytes = std::vector<std::byte>;

void appendFpdu(Bytes& stream, const Bytes& ulpdu, FuzzedDataProvider& choices, bool mayLie) {
  const auto start = stream.size();
  std::size_t length = ulpdu.size();
  if (mayLie && choices.ConsumeIntegralInRange(0, 31) == 0) length = choices.ConsumeIntegral<std::uint16_t>();
  stream.push_back(static_cast<std::byte>(length >> 8 & 0xff));
  stream.push_back(static_cast<std::byte>(length & 0xff));
  stream.insert(stream.end(), ulpdu.begin(), ulpdu.end());
  while ((stream.size() - start) % 4 != 0) stream.push_back(std::byte{0});
  auto crc = ~iwarp::crc32cUpdate(iwarp::crc32cStart, stream.data() + start, stream.size() - start);
  if (mayLie && choices.ConsumeIntegralInRange(0, 63) == 0) crc ^= 1;
  for (unsigned shift = 0; shift < 32; shift += 8) stream.push_back(static_cast<std::byte>(crc >> shift & 0xff));
}

template <typename Number>
void append(Bytes& bytes, Number value) {
  for (auto shift = static_cast<int>(sizeof value * 8) - 8; shift >= 0; shift -= 8)
    bytes.push_back(static_cast<std::byte>(value >> shift & 0xff));
}

/** Numbers that a proper peer would send next, so that a recipe need not guess them. */
struct Expected {
  std::uint32_t sendNumber = 1;
  std::uint32_t sendOffset = 0;
  std::uint32_t readNumber = 1;
  std::uint64_t tagOffset[2] = {0, 0};
};

/** `right`, or sometimes something near it or far from it. */
template <typename Number>
Number nearly(Number right, FuzzedDataProvider& choices) {
  switch (choices.ConsumeIntegralInRange(0, 15)) {
    case 0: return static_cast<Number>(right + static_cast<Number>(choices.ConsumeIntegral<std::int8_t>()));
    case 1: return choices.ConsumeIntegral<Number>();
    default: return right;
  }
}

Bytes payload(FuzzedDataProvider& choices) {
  static constexpr std::size_t lengths[] = {0, 1, 2, 3, 4, 7, 36, 100, 512, 1486, 2999, 3000, 3001, 9000};
  return Bytes(lengths[choices.ConsumeIntegralInRange<std::size_t>(0, std::size(lengths) - 1)], std::byte{0x3c});
}

/** One frame of any kind, right but for what `nearly` makes of its fields. */
void appendFrame(Bytes& stream, Expected& expected, const GuardedHost& host, FuzzedDataProvider& choices) {
  const auto opcode = choices.ConsumeIntegralInRange<std::uint8_t>(0, 8);
  const bool tagged = opcode == 0 || opcode == 2;
  const bool last = choices.ConsumeBool();
  Bytes ulpdu;
  const auto control = static_cast<std::uint8_t>((tagged ? 0x80 : 0) | (last ? 0x40 : 0) | 1);
  append(ulpdu, nearly<std::uint8_t>(control, choices));
  append(ulpdu, nearly<std::uint8_t>(static_cast<std::uint8_t>(0x40 | opcode), choices));
  auto data = payload(choices);
  if (tagged) {
    const auto tag = host.tag(opcode == 2 ? 5 : choices.ConsumeIntegralInRange(0U, 7U));
    auto& next = expected.tagOffset[opcode == 2 ? 1 : 0];
    append(ulpdu, nearly(tag, choices));
    append(ulpdu, nearly(host.address(tag) + next, choices));
    next = last ? 0 : next + data.size();
  } else {
    const std::uint32_t queue = opcode == 1 ? 1 : opcode == 7 ? 2 : 0;
    const bool invalidates = opcode == 4 || opcode == 6;
    append(ulpdu, invalidates ? nearly(host.tag(choices.ConsumeIntegralInRange(0U, 7U)), choices) : std::uint32_t{0});
    append(ulpdu, nearly(queue, choices));
    append(ulpdu, nearly(queue == 0 ? expected.sendNumber : queue == 1 ? expected.readNumber : 1, choices));
    append(ulpdu, nearly(queue == 0 ? expected.sendOffset : 0, choices));
    if (queue == 1) {
      data.clear();
      append(data, choices.ConsumeIntegral<std::uint32_t>());
      append(data, choices.ConsumeIntegral<std::uint64_t>());
      append(data, nearly<std::uint32_t>(64, choices));
      const auto tag = host.tag(choices.ConsumeIntegralInRange(2U, 7U));
      append(data, nearly(tag, choices));
      append(data, nearly(host.address(tag), choices));
      ++expected.readNumber;
    } else if (queue == 0) {
      expected.sendOffset = last ? 0 : expected.sendOffset + static_cast<std::uint32_t>(data.size());
      if (last) ++expected.sendNumber;
    }
  }
  ulpdu.insert(ulpdu.end(), data.begin(), data.end());
  appendFpdu(stream, ulpdu, choices, true);
}

/** Puts `stream` where the receiver wants it, `portion` bytes at a time. */
void pour(Receiver& receiver, std::span<const std::byte> stream, std::size_t portion) {
  while (!stream.empty() && receiver.state() == Receiver::State::running) {
    std::size_t taken = 0;
    const auto limit = std::min(portion, stream.size());
    std::size_t room = 0;
    for (const auto& buffer : receiver.buffers()) {
      room += buffer.iov_len;
      const auto part = std::min(limit - taken, buffer.iov_len);
      std::memcpy(buffer.iov_base, stream.data() + taken, part);
      taken += part;
    }
    MUST(room > 0);
    receiver.filled(taken);
    stream = stream.subspan(taken);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  FuzzedDataProvider choices(data, size);
  const bool crc = choices.ConsumeBool();
  const bool isStream = choices.ConsumeBool();
  const auto portion = choices.PickValueInArray<std::size_t>({1, 2, 3, 7, 64, 1000, 1460, 16384});
  const auto rtr = choices.PickValueInArray({iwarp::Rtr::none, iwarp::Rtr::none, iwarp::Rtr::send, iwarp::Rtr::write, iwarp::Rtr::read});

  GuardedHost whole;
  GuardedHost cut;
  Bytes stream;
  if (isStream) {
    stream = choices.ConsumeRemainingBytes<std::byte>();
  } else {
    Expected expected;
    while (choices.remaining_bytes() > 0 && stream.size() < 40000) appendFrame(stream, expected, whole, choices);
  }

  Receiver first(whole, crc, rtr);
  first.feed(stream);
  Receiver second(cut, crc, rtr);
  pour(second, stream, std::max(portion, stream.size() / 500));

  whole.checkCanaries();
  cut.checkCanaries();
  MUST(first.state() == second.state());
  MUST(whole.delivered() == cut.delivered());
  MUST(first.frameCount() == second.frameCount());
  if (first.state() == Receiver::State::violated) {
    MUST(first.violation().text == second.violation().text);
    MUST(!first.violation().text.empty());
    const auto terminate = iwarp::buildTerminate(first.violation().code, first.offendingHeader());
    MUST(!iwarp::describeTerminate(terminate).empty());
  }
  if (first.state() == Receiver::State::terminated) MUST(!iwarp::describeTerminate(first.terminateMessage()).empty());
  return 0;
}
