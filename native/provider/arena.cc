#include "arena.h"

#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <new>

namespace iserfs::rdma {

namespace {

std::atomic<std::uint32_t> lastId{0};

constexpr std::size_t hugePage = 2 * 1024 * 1024;

void* map(std::size_t length) noexcept {
  void* data = ::mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return data == MAP_FAILED ? nullptr : data;
}

/**
 * Whole huge pages; null where there is no memory. The system places mappings one below the other: they lie at the end of what is mapped
 * for them, so that no hole stays between them and the last ones. Else each would count as a mapping, of which a process may have 65,530.
 */
void* mapHuge(std::size_t length) noexcept {
  const std::size_t mapped = length + hugePage;
  auto* data = mapped < length ? nullptr : static_cast<std::byte*>(map(mapped));
  if (data == nullptr) return nullptr;
  const std::size_t after = (reinterpret_cast<std::uintptr_t>(data) + mapped) % hugePage;
  const std::size_t before = mapped - length - after;
  if (before > 0) ::munmap(data, before);
  if (after > 0) ::munmap(data + before + length, after);
  // A system that has none, or has none left, gives pages of the ordinary size.
  ::madvise(data + before, length, MADV_HUGEPAGE);
  return data + before;
}

}  // namespace

std::shared_ptr<Arena> Arena::allocate(std::size_t length) {
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  const std::size_t mapped = (length + page - 1) / page * page;
  if (length == 0 || mapped < length || length > UINT32_MAX) throw std::bad_alloc();
  void* data = mapped % hugePage == 0 ? mapHuge(mapped) : map(mapped);
  if (data == nullptr) throw std::bad_alloc();
  try {
    return std::shared_ptr<Arena>(new Arena(static_cast<std::byte*>(data), length, mapped));
  } catch (...) {
    ::munmap(data, mapped);
    throw;
  }
}

Arena::Arena(std::byte* data, std::size_t length, std::size_t mapped) noexcept
    : data_(data), length_(length), mapped_(mapped), id_(++lastId) {}

Arena::~Arena() { ::munmap(data_, mapped_); }

}  // namespace iserfs::rdma
