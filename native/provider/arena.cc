#include "arena.h"

#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <new>

namespace iserfs::rdma {

namespace {

std::atomic<std::uint32_t> lastId{0};

constexpr std::size_t hugePage = 2 * 1024 * 1024;

/** `length` bytes that begin at a multiple of `alignment`, which is one of the page length; null where there is no memory. */
void* mapAligned(std::size_t length, std::size_t alignment) noexcept {
  const std::size_t mapped = length + alignment;
  if (mapped < length) return nullptr;
  auto* data = static_cast<std::byte*>(::mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  if (data == MAP_FAILED) return nullptr;
  const std::size_t before = (alignment - reinterpret_cast<std::uintptr_t>(data) % alignment) % alignment;
  if (before > 0) ::munmap(data, before);
  ::munmap(data + before + length, alignment - before);
  return data + before;
}

}  // namespace

std::shared_ptr<Arena> Arena::allocate(std::size_t length) {
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  const std::size_t mapped = (length + page - 1) / page * page;
  if (length == 0 || mapped < length || length > UINT32_MAX) throw std::bad_alloc();
  const bool isHuge = mapped % hugePage == 0;
  void* data = mapAligned(mapped, isHuge ? hugePage : page);
  if (data == nullptr) throw std::bad_alloc();
  // A system that has none, or has none left, gives pages of the ordinary size.
  if (isHuge) ::madvise(data, mapped, MADV_HUGEPAGE);
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
