/** MPA's set-up against what libiscsi, ib_iser, tgtd and LIO send over Linux siw 6.1 (captured), and against broken frames. */
#include "iwarp/mpa.h"

#include <doctest/doctest.h>

#include "support.h"

namespace iserfs::test {

using namespace iserfs::rdma::iwarp;

namespace {

const std::string requestKey = "4d504120494420526571204672616d65";
const std::string replyKey = "4d504120494420526570204672616d65";

std::variant<MpaFrame, MpaFault> parse(const std::string& hexadecimal, MpaKind kind) {
  const auto bytes = bytesOf(hexadecimal);
  REQUIRE(bytes.size() >= mpaHeaderLength);
  const auto header = parseMpaHeader(std::span(bytes).first<mpaHeaderLength>(), kind);
  if (const auto* fault = std::get_if<MpaFault>(&header)) return *fault;
  REQUIRE(bytes.size() == mpaHeaderLength + std::get<MpaHeader>(header).privateDataLength);
  return parseMpaFrame(std::get<MpaHeader>(header), std::span(bytes).subspan(mpaHeaderLength));
}

MpaFrame request(const std::string& rest) {
  auto frame = parse(requestKey + rest, MpaKind::request);
  REQUIRE(std::holds_alternative<MpaFrame>(frame));
  return std::get<MpaFrame>(frame);
}

MpaFrame reply(const std::string& rest) {
  auto frame = parse(replyKey + rest, MpaKind::reply);
  REQUIRE(std::holds_alternative<MpaFrame>(frame));
  return std::get<MpaFrame>(frame);
}

std::string replyTo(const std::string& rest, std::uint16_t ird, std::uint16_t ord, const std::string& privateData = "80000000") {
  const auto bytes = bytesOf(privateData);
  return hexOf(buildMpaReply(request(rest), {.crc = true, .ird = ird, .ord = ord, .privateData = bytes})).substr(replyKey.size());
}

}  // namespace

TEST_SUITE_BEGIN("mpa");

TEST_CASE("a request is revision 2, enhanced, with IRD, ORD and the ULP's private data") {
  const auto privateData = bytesOf("c0000000");
  // But for C, as libiscsi's captured request.
  CHECK(hexOf(buildMpaRequest({.crc = false, .ird = 4, .ord = 0, .privateData = privateData})) ==
        requestKey + "1002000800040000c0000000");
  CHECK(hexOf(buildMpaRequest({.crc = true, .ird = 16, .ord = 16, .privateData = privateData})) ==
        requestKey + "5002000800100010c0000000");
}

TEST_CASE("captured requests are understood") {
  const MpaFrame libiscsi = request("1002000800040000c0000000");
  CHECK_FALSE(libiscsi.header.crc);
  CHECK(libiscsi.header.revision == 2);
  REQUIRE(libiscsi.enhanced.has_value());
  CHECK(libiscsi.enhanced->ird == 4);
  CHECK(libiscsi.enhanced->ord == 0);
  CHECK_FALSE(libiscsi.enhanced->peerToPeer);
  CHECK(hexOf(libiscsi.privateData) == "c0000000");
  const MpaFrame kernel = request("100200080080000180000000");
  CHECK(kernel.enhanced->ird == 128);
  CHECK(kernel.enhanced->ord == 1);
}

TEST_CASE("replies are those of LIO to the same requests") {
  CHECK(replyTo("1002000800040000c0000000", 128, 128, "c0000000") == "1002000800000004c0000000");
  CHECK(replyTo("100200080080000180000000", 128, 128) == "100200080001008080000000");
  CHECK(replyTo("500200080010001080000000", 128, 128) == "500200080010001080000000");
  CHECK(replyTo("5002000480108010", 128, 128) == "500200088010801080000000");
  CHECK(replyTo("5002000480104010", 128, 128) == "500200088010401080000000");
  CHECK(replyTo("5002000400000000", 128, 128) == "500200080000000080000000");
  CHECK(replyTo("40010000", 128, 128, "c0000000") == "40010004c0000000");
  CHECK(replyTo("00000000", 128, 128, "c0000000") == "00000004c0000000");
}

TEST_CASE("a responder grants no more than it has and uses no more than the initiator has") {
  const MpaFrame frame = request("500200080010001080000000");
  const MpaAgreement agreement = settleMpaRequest(frame, {.crc = true, .ird = 4, .ord = 3, .privateData = {}});
  CHECK(agreement.ird == 4);
  CHECK(agreement.ord == 3);
  CHECK(agreement.crc);
  CHECK(agreement.rtr == Rtr::none);
  CHECK(settleMpaRequest(request("5002000400010001"), {.crc = true, .ird = 4, .ord = 3, .privateData = {}}).ord == 1);
  CHECK(settleMpaRequest(request("500200043fff3fff"), {.crc = true, .ird = 4, .ord = 3, .privateData = {}}).ird == 4);
}

TEST_CASE("CRCs are used when the initiator asks, whatever the responder would like") {
  CHECK_FALSE(settleMpaRequest(request("1002000400010001"), {.crc = true, .ird = 1, .ord = 1, .privateData = {}}).crc);
  CHECK(settleMpaRequest(request("5002000400010001"), {.crc = false, .ird = 1, .ord = 1, .privateData = {}}).crc);
}

TEST_CASE("the first message of a peer-to-peer initiator is the one that costs least of those it offers") {
  const MpaTerms terms{.crc = true, .ird = 0, .ord = 0, .privateData = {}};
  CHECK(settleMpaRequest(request("50020004c010c010"), terms).rtr == Rtr::write);
  CHECK(settleMpaRequest(request("50020004c0104010"), terms).rtr == Rtr::read);
  CHECK(settleMpaRequest(request("50020004c0104010"), terms).ird == 1);
  CHECK(settleMpaRequest(request("50020004c0100010"), terms).rtr == Rtr::send);
  CHECK(objectionToMpaRequest(request("5002000480100010")).has_value());
  CHECK_FALSE(objectionToMpaRequest(request("5002000480108010")).has_value());
}

TEST_CASE("markers are refused") {
  CHECK(objectionToMpaRequest(request("80010000")).has_value());
  CHECK(hexOf(buildMpaReject(request("80010000").header)) == replyKey + "20010000");
  CHECK(hexOf(buildMpaReject(request("c0010000").header)) == replyKey + "60010000");
  const auto settled = settleMpaReply({.crc = true, .ird = 1, .ord = 1, .privateData = {}}, reply("c0010000"));
  REQUIRE(std::holds_alternative<MpaFault>(settled));
  CHECK(std::get<MpaFault>(settled).kind == MpaFault::Kind::malformed);
}

TEST_CASE("captured replies settle the connection") {
  const MpaTerms offered{.crc = true, .ird = 16, .ord = 16, .privateData = {}};
  const auto tgtd = std::get<MpaAgreement>(settleMpaReply(offered, reply("5002000400100010")));
  CHECK(tgtd.crc);
  CHECK(tgtd.ird == 16);
  CHECK(tgtd.ord == 16);
  const auto lio = std::get<MpaAgreement>(settleMpaReply(offered, reply("500200080010001080000000")));
  CHECK(lio.ird == 16);
  const auto kernel = std::get<MpaAgreement>(settleMpaReply({.crc = false, .ird = 128, .ord = 1, .privateData = {}}, reply("100200080001008080000000")));
  CHECK(kernel.ird == 128);
  CHECK(kernel.ord == 1);
  CHECK_FALSE(kernel.crc);
}

TEST_CASE("a reply of an old responder grants one Read at a time") {
  const auto agreement = std::get<MpaAgreement>(settleMpaReply({.crc = true, .ird = 16, .ord = 16, .privateData = {}}, reply("40010000")));
  CHECK(agreement.ird == 16);
  CHECK(agreement.ord == 1);
}

TEST_CASE("a reply that rejects, or wants more Reads than were granted, ends it") {
  const MpaTerms offered{.crc = true, .ird = 16, .ord = 16, .privateData = {}};
  CHECK(std::get<MpaFault>(settleMpaReply(offered, reply("60010000"))).kind == MpaFault::Kind::rejected);
  CHECK(std::get<MpaFault>(settleMpaReply(offered, reply("5002000400100011"))).kind == MpaFault::Kind::insufficientIrd);
}

TEST_CASE("frames that are none are told") {
  for (const std::string rest : {"10030000", "50020201", "5002ffff"}) {
    const auto bytes = bytesOf(requestKey + rest);
    CHECK(std::holds_alternative<MpaFault>(parseMpaHeader(std::span(bytes).first<mpaHeaderLength>(), MpaKind::request)));
  }
  CHECK(std::holds_alternative<MpaFault>(parse(replyKey + "00010000", MpaKind::request)));
  CHECK(std::holds_alternative<MpaFault>(parse(requestKey + "00010000", MpaKind::reply)));
  CHECK(std::holds_alternative<MpaFault>(parse(requestKey + "50020000", MpaKind::request)));
  CHECK(std::holds_alternative<MpaFault>(parse(requestKey + "50020003001000", MpaKind::request)));
}

TEST_SUITE_END();

}  // namespace iserfs::test
