/** See work_queue.h. */
#include "verbs/work_queue.h"

#if ISERFS_HAVE_VERBS

#include <algorithm>
#include <stdexcept>

namespace iserfs::rdma::verbs {

std::uint32_t WorkQueue::take() {
  if (free_.empty()) throw std::length_error("more work requests than the queue pair was made for");
  const std::uint32_t index = free_.back();
  free_.pop_back();
  entries_[index].isPosted = true;
  entries_[index].sequence = ++lastSequence_;
  return index;
}

WorkQueue::Entry WorkQueue::release(std::uint32_t index) {
  Entry entry = std::move(entries_.at(index));
  entries_[index] = Entry();
  free_.push_back(index);
  return entry;
}

std::vector<WorkQueue::Entry> WorkQueue::releaseAll() {
  std::vector<Entry> left;
  for (std::uint32_t index = 0; index < entries_.size(); index++) {
    if (entries_[index].isPosted) left.push_back(release(index));
  }
  std::sort(left.begin(), left.end(), [](const Entry& a, const Entry& b) { return a.sequence < b.sequence; });
  return left;
}

void requireWithinArena(const Segment& segment) {
  if (segment.length == 0) return;
  if (segment.arena == nullptr || segment.offset > segment.arena->length() || segment.length > segment.arena->length() - segment.offset) {
    throw std::out_of_range("a segment reaches beyond its arena");
  }
}

}  // namespace iserfs::rdma::verbs

#endif
