/**
 * Fuzzes MPA's set-up frames: what a peer sends as a request or as a reply. Whatever it is, it is read or refused in words, no more is
 * agreed than was offered, and what this end answers can be read by its own initiator.
 */
#include <fuzzer/FuzzedDataProvider.h>

#include "iwarp/mpa.h"
#include "must.h"

namespace {

using namespace iserfs::rdma::iwarp;

constexpr std::uint16_t largestDepth = 0x3ffe;

std::optional<MpaFrame> parse(std::span<const std::byte> bytes, MpaKind kind) {
  if (bytes.size() < mpaHeaderLength) return std::nullopt;
  const auto header = parseMpaHeader(bytes.first<mpaHeaderLength>(), kind);
  if (const auto* fault = std::get_if<MpaFault>(&header)) {
    MUST(!fault->text.empty());
    return std::nullopt;
  }
  const auto& fields = std::get<MpaHeader>(header);
  MUST(fields.privateDataLength <= mpaMaxPrivateData);
  const auto rest = bytes.subspan(mpaHeaderLength);
  if (rest.size() < fields.privateDataLength) return std::nullopt;
  auto frame = parseMpaFrame(fields, rest.first(fields.privateDataLength));
  if (const auto* fault = std::get_if<MpaFault>(&frame)) {
    MUST(!fault->text.empty());
    return std::nullopt;
  }
  MUST(std::get<MpaFrame>(frame).privateData.size() <= fields.privateDataLength);
  return std::get<MpaFrame>(std::move(frame));
}

void answer(const MpaFrame& request, const MpaTerms& terms) {
  if (const auto objection = objectionToMpaRequest(request)) {
    MUST(!objection->empty());
    const auto rejection = parse(buildMpaReject(request.header), MpaKind::reply);
    MUST(rejection && rejection->header.rejected);
    return;
  }
  const auto agreement = settleMpaRequest(request, terms);
  MUST(agreement.crc == request.header.crc);
  MUST(agreement.ird <= std::max<std::uint16_t>(terms.ird, 1));
  MUST(agreement.ord <= std::max<std::uint16_t>(terms.ord, 1));
  if (request.enhanced && request.enhanced->ird != mpaDepthUnknown) MUST(agreement.ord <= request.enhanced->ird);
  const auto reply = parse(buildMpaReply(request, terms), MpaKind::reply);
  MUST(reply && !reply->header.rejected && !reply->header.markers);
  MUST(reply->header.crc == request.header.crc);
  MUST(reply->header.revision == request.header.revision);
  MUST(reply->enhanced.has_value() == request.enhanced.has_value());
  MUST(std::equal(reply->privateData.begin(), reply->privateData.end(), terms.privateData.begin(), terms.privateData.end()));
  if (!request.enhanced || request.enhanced->ird == mpaDepthUnknown || request.enhanced->ord == mpaDepthUnknown) return;
  // The initiator that sent this request takes the reply, and both come to the same depths.
  const MpaTerms offered{request.header.crc, request.enhanced->ird, request.enhanced->ord, {}};
  const auto settled = settleMpaReply(offered, *reply);
  const auto* theirs = std::get_if<MpaAgreement>(&settled);
  MUST(theirs != nullptr);
  MUST(theirs->crc == agreement.crc);
  MUST(theirs->ird >= agreement.ord);
  MUST(agreement.ird >= theirs->ord);
}

void settle(const MpaFrame& reply, const MpaTerms& offered) {
  const auto settled = settleMpaReply(offered, reply);
  if (const auto* fault = std::get_if<MpaFault>(&settled)) {
    MUST(!fault->text.empty());
    return;
  }
  const auto& agreement = std::get<MpaAgreement>(settled);
  MUST(!reply.header.rejected && !reply.header.markers);
  MUST(agreement.ird <= offered.ird);
  MUST(agreement.ord <= offered.ord);
  MUST(!offered.crc || agreement.crc);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  FuzzedDataProvider choices(data, size);
  const std::vector<std::byte> privateData(choices.ConsumeIntegralInRange<std::size_t>(0, 196), std::byte{0x5a});
  const MpaTerms terms{choices.ConsumeBool(), choices.ConsumeIntegralInRange<std::uint16_t>(0, largestDepth),
                       choices.ConsumeIntegralInRange<std::uint16_t>(0, largestDepth), privateData};
  MUST(parse(buildMpaRequest(terms), MpaKind::request));
  const auto bytes = choices.ConsumeRemainingBytes<std::byte>();
  if (const auto request = parse(bytes, MpaKind::request)) answer(*request, terms);
  if (const auto reply = parse(bytes, MpaKind::reply)) settle(*reply, terms);
  return 0;
}
