#include "arena.h"

#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <new>

namespace iserfs::rdma {

namespace {
std::atomic<std::uint32_t> lastId{0};
}

std::shared_ptr<Arena> Arena::allocate(std::size_t length) {
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  const std::size_t mapped = (length + page - 1) / page * page;
  if (length == 0 || mapped < length || length > UINT32_MAX) throw std::bad_alloc();
  void* data = ::mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) throw std::bad_alloc();
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
