/** DDP and RDMAP headers against frames that Linux siw 6.1 sent (captured), and Terminate messages in words. */
#include "iwarp/rdmap.h"

#include <doctest/doctest.h>

#include <array>

#include "support.h"

namespace iserfs::test {

using namespace iserfs::rdma::iwarp;

namespace {

SegmentHeader parsed(const std::string& hexadecimal) {
  SegmentHeader header;
  const auto violation = parseSegmentHeader(bytesOf(hexadecimal), header);
  REQUIRE_FALSE(violation.has_value());
  return header;
}

TerminateCode refused(const std::string& hexadecimal) {
  SegmentHeader header;
  const auto violation = parseSegmentHeader(bytesOf(hexadecimal), header);
  REQUIRE(violation.has_value());
  CHECK_FALSE(violation->text.empty());
  return violation->code;
}

std::string written(const SegmentHeader& header) {
  std::array<std::byte, untaggedHeaderLength> bytes{};
  const std::size_t length = writeSegmentHeader(bytes.data(), header);
  return hexOf(std::span(bytes).first(length));
}

}  // namespace

TEST_SUITE_BEGIN("rdmap");

TEST_CASE("captured headers are understood, and written the same") {
  const std::string write = "0032c140000010020000000000010000";
  const SegmentHeader tagged = parsed(write);
  CHECK(tagged.type == MessageType::write);
  CHECK(tagged.last);
  CHECK(tagged.tag == 0x1002);
  CHECK(tagged.taggedOffset == 0x10000);
  CHECK(tagged.payloadLength == 36);
  CHECK(written(tagged) == write);
  const std::string part = "05aa8140000010150000000000010000";
  CHECK_FALSE(parsed(part).last);
  CHECK(written(parsed(part)) == part);
  const std::string invalidate = "005e414400001002000000000000000200000000";
  const SegmentHeader send = parsed(invalidate);
  CHECK(send.type == MessageType::sendInvalidate);
  CHECK(send.tag == 0x1002);
  CHECK(send.messageNumber == 2);
  CHECK(send.payloadLength == 76);
  CHECK(written(send) == invalidate);
  const std::string response = "000ec142000000070000000000000000";
  CHECK(parsed(response).type == MessageType::readResponse);
  CHECK(parsed(response).payloadLength == 0);
}

TEST_CASE("a captured Read Request is understood, and written the same") {
  CHECK(parsed("002e414100000000000000010000000100000000").payloadLength == readRequestLength);
  const std::string payload = "9f8d400000007f4fcafbc0000000400000002014" "0000000000020000";
  const auto bytes = bytesOf(payload);
  const ReadRequest request = parseReadRequest(std::span(bytes).first<readRequestLength>());
  CHECK(request.sinkTag == 0x9f8d4000);
  CHECK(request.sinkAddress == 0x7f4fcafbc000);
  CHECK(request.length == 16384);
  CHECK(request.sourceTag == 0x2014);
  CHECK(request.sourceAddress == 0x20000);
  std::array<std::byte, readRequestLength> again{};
  writeReadRequest(again.data(), request);
  CHECK(hexOf(again) == payload);
}

TEST_CASE("versions, opcodes and lengths that cannot be are refused") {
  CHECK(refused("0032c240000010020000000000010000") == terminate_code::ddpVersion);
  CHECK(refused("005e424300000000000000000000000200000000") == terminate_code::untaggedVersion);
  CHECK(refused("0032c100000010020000000000010000") == terminate_code::rdmapVersion);
  CHECK(refused("0032c180000010020000000000010000") == terminate_code::rdmapVersion);
  CHECK(refused("005e414800000000000000000000000200000000") == terminate_code::unexpectedOpcode);
  CHECK(refused("005e414000000000000000000000000200000000") == terminate_code::unexpectedOpcode);
  CHECK(refused("0032c143000010020000000000010000") == terminate_code::unexpectedOpcode);
  CHECK(refused("000dc140000010020000000000010000") == terminate_code::streamCatastrophe);
  CHECK(refused("0011414300000000000000000000000200000000") == terminate_code::streamCatastrophe);
}

TEST_CASE("frames are padded to a multiple of four") {
  CHECK(padLength(20) == 0);
  CHECK(padLength(21) == 3);
  CHECK(padLength(22) == 2);
  CHECK(padLength(23) == 1);
}

TEST_CASE("a Terminate message has layer, type and code where RFC 5040 has them, and the header at fault") {
  CHECK(hexOf(buildTerminate(terminate_code::crcError, {})) == "20020000");
  const auto tagged = bytesOf("0032c140000010020000000000010000");
  CHECK(hexOf(buildTerminate(terminate_code::taggedOutOfBounds, tagged)) == "1101c0000032c140000010020000000000010000");
  const auto request = bytesOf("002e414100000000000000010000000100000000" "9f8d400000007f4fcafbc00000004000000020140000000000020000");
  CHECK(hexOf(buildTerminate(terminate_code::invalidTag, request)).starts_with("0100e000002e4141"));
}

TEST_CASE("Terminate messages that siw sent are read with its order of the bits") {
  const std::array<std::pair<const char*, const char*>, 7> captured{{
      {"11000300 0004c14012345678 0000000000000000", "DDP: invalid STag"},
      {"21030300 004c41430000000000000000 0000000200000000", "DDP: message sequence number out of range"},
      {"21040300 004c41430000000000000000 0000000100000004", "DDP: invalid message offset"},
      {"21010300 004c41430000000000000005 0000000100000000", "DDP: invalid queue number"},
      {"21020300 1f4001430000000000000000 0000000100001f40", "DDP: no buffer posted for the message"},
      {"20090300 004c41441234560000000000 0000000100000000", "RDMAP: an STag cannot be invalidated"},
      {"10000700 000041410000000000000001 0000001000000000", "RDMAP: invalid STag"},
  }};
  for (const auto& [bytes, words] : captured) {
    const std::string text = describeTerminate(bytesOf(bytes));
    CHECK_MESSAGE(text.find(std::string("(") + words + ")") != std::string::npos, text);
  }
  CHECK(blamesReadRequest(bytesOf(captured[6].first)));
  CHECK_FALSE(blamesReadRequest(bytesOf(captured[0].first)));
}

TEST_CASE("Terminate messages in the order of RFC 5040 are read so, and both ways where nothing tells") {
  CHECK(describeTerminate(bytesOf("0101c000")) == "the peer ended the connection with Terminate (RDMAP: out of the bounds of an STag)");
  CHECK(describeTerminate(bytesOf("11010000")) == "the peer ended the connection with Terminate (DDP: out of the bounds of an STag)");
  CHECK(describeTerminate(bytesOf("02020000")).find("MPA: CRC error") != std::string::npos);
  CHECK(describeTerminate(bytesOf("20060000")).find("RDMAP: unexpected opcode") != std::string::npos);
  CHECK(describeTerminate(bytesOf("7f770000")).find("layer 7, type 15, code 0x77") != std::string::npos);
  CHECK(describeTerminate(bytesOf("20")).find("cut off") != std::string::npos);
  CHECK(blamesReadRequest(bytesOf("0100e000")));
}

TEST_SUITE_END();

}  // namespace iserfs::test
