/*
 * Pages of the program over which a context's memory file is mapped: queues and doorbell records that a provider has
 * allocated itself, and that the device shares (docs/decisions/adopted-pages.md). Answers of calls say which
 * (`struct userdma_mapping`). The pages keep their content, and become ordinary memory again when the daemon says so,
 * and when the last descriptor of the context is closed. The child of a fork gets a private mapping of the file: the
 * pages are in its heap, too, and must not be its parent's queues.
 *
 * While pages are replaced, stores of other threads to them wait in the kernel (write protection by a userfaultfd):
 * doorbell records of many queues share a page. Where the kernel refuses that, such a store may be lost. Stores by the
 * kernel itself, for example in read(2), wait too if the process is privileged; otherwise they fail with EFAULT, and
 * the call is made again (RETRIED).
 */
#define _GNU_SOURCE
#include "parts.h"
#include "requests.h"

#include <errno.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <ucontext.h>

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif

enum {
    OTHER_STACK_BYTES = 65536, /* also the most that our functions use */
    MAX_YIELDS = 1000, /* of a thread that waits until pages are replaced */
};

struct adopted {
    uint64_t address;
    uint64_t length;
    /* In the file of the context with this number. */
    uint64_t offset;
    uint32_t context;
    /* In a child: a private mapping. */
    bool is_private;
    ino_t inode;
    /* Bytes that still are mapped from the file, after find_mapped. */
    uint64_t mapped;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
/* Mapped memory. */
static struct adopted *ranges;
static size_t count, capacity;
/*
 * Our userfaultfd; -1: none yet. It stays open, hidden from the program: closing one looks at all mappings of the
 * process, which may be ten thousands.
 */
static int watcher = -1;
/* How often pages have been protected. */
static unsigned freezes;
bool adopted_is_replacing;

static void *pointer(uint64_t address)
{
    return (void *)(uintptr_t)address;
}

/* ---- the table, with the lock held ---- */

/* Makes room for one more range. 0 or -errno. */
static int reserve(void)
{
    if (count < capacity)
        return 0;
    const size_t wanted = capacity ? 2 * capacity : 64;
    void *memory =
        REAL(mmap)(NULL, wanted * sizeof *ranges, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return -errno;
    if (ranges) {
        memcpy(memory, ranges, count * sizeof *ranges);
        early_syscall(SYS_munmap, (long)ranges, (long)(capacity * sizeof *ranges), 0, 0, 0, 0);
    }
    ranges = memory;
    capacity = wanted;
    return 0;
}

static void forget(size_t index)
{
    memmove(ranges + index, ranges + index + 1, (--count - index) * sizeof *ranges);
}

/* ---- what is mapped ---- */

/* Adds a line of /proc/self/maps to `mapped` of the ranges: START-END rwxp OFFSET MAJOR:MINOR INODE PATH. */
static void note_mapping(const char *line)
{
    char *at;
    const uint64_t start = strtoull(line, &at, 16);
    const uint64_t end = *at == '-' ? strtoull(at + 1, &at, 16) : start;
    if (start == end || *at != ' ' || strlen(at) < 6)
        return;
    const bool is_private = at[4] == 'p';
    const uint64_t offset = strtoull(at + 6, &at, 16);
    at = strchr(at, ':');
    if (!at)
        return;
    strtoull(at + 1, &at, 16);
    const uint64_t inode = strtoull(at, NULL, 10);
    if (inode == 0)
        return;
    for (size_t i = 0; i < count; i++) {
        struct adopted *range = ranges + i;
        const uint64_t from = range->address > start ? range->address : start;
        const uint64_t range_end = range->address + range->length, to = range_end < end ? range_end : end;
        if (from < to && range->inode == inode && range->is_private == is_private &&
            offset + (from - start) == range->offset + (from - range->address))
            range->mapped += to - from;
    }
}

/*
 * Finds what is still mapped. A program may have unmapped a range that the daemon never released, because the daemon
 * has ended, say, and have other memory there. False: /proc is not available.
 */
static bool find_mapped(void)
{
    /* Under the lock, or in a child of one thread; the stack of a thread may be small (PTHREAD_STACK_MIN). */
    static char buffer[8192];
    size_t filled = 0;
    const int fd = (int)early_syscall(SYS_openat, AT_FDCWD, (long)"/proc/self/maps", O_RDONLY | O_CLOEXEC, 0, 0, 0);
    if (fd < 0)
        return false;
    for (size_t i = 0; i < count; i++)
        ranges[i].mapped = 0;
    for (;;) {
        const size_t room = sizeof buffer - 1 - filled;
        const long length = early_syscall(SYS_read, fd, (long)(buffer + filled), (long)room, 0, 0, 0);
        if (length <= 0)
            break;
        filled += (size_t)length;
        buffer[filled] = 0;
        char *line = buffer;
        for (char *end; (end = strchr(line, '\n')); line = end + 1) {
            *end = 0;
            note_mapping(line);
        }
        filled -= (size_t)(line - buffer);
        memmove(buffer, line, filled);
    }
    early_syscall(SYS_close, fd, 0, 0, 0, 0, 0);
    return true;
}

/* A descriptor of the range's file; -1: none is known. */
static int file_of(const struct adopted *range)
{
    struct stat file;
    for (int fd = fd_of_context(range->context, 0); fd >= 0; fd = fd_of_context(range->context, fd + 1))
        if (REAL(fstat)(fd, &file) == 0 && file.st_ino == range->inode)
            return fd;
    return -1;
}

/* ---- replacing pages ---- */

/* Opens the userfaultfd unless it is open. With the lock held. False: the kernel refuses it. */
static bool open_watcher(void)
{
    struct uffdio_api api = {.api = UFFD_API};
    if (sanitizers_valgrind || shim_is_other_process())
        return false; /* a vfork child has our memory, and descriptors of its own */
    if (watcher >= 0)
        return true;
    /* Stores by the kernel wait only for privileged processes (CAP_SYS_PTRACE, vm.unprivileged_userfaultfd). */
    int fd = (int)early_syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK, 0, 0, 0, 0, 0);
    if (fd < 0)
        fd = (int)early_syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY, 0, 0, 0, 0, 0);
    if (fd < 0)
        return false;
    if (REAL(ioctl)(fd, UFFDIO_API, &api) != 0)
        REAL(close)(fd);
    else
        watcher = fd_hide(fd, -1, true);
    return watcher >= 0;
}

/*
 * Lets stores of other threads to these pages wait until thaw. False: the kernel refuses it. Preserves errno.
 */
static bool freeze(uint64_t address, uint64_t length)
{
    const int saved = errno;
    struct uffdio_register watched = {.range = {address, length}, .mode = UFFDIO_REGISTER_MODE_WP};
    struct uffdio_writeprotect protection = {.range = {address, length}, .mode = UFFDIO_WRITEPROTECT_MODE_WP};
    bool is_frozen = open_watcher() && REAL(ioctl)(watcher, UFFDIO_REGISTER, &watched) == 0;
    if (is_frozen) /* before the first store that may fail */
        __atomic_fetch_add(&freezes, 1, __ATOMIC_RELEASE);
    if (is_frozen && REAL(ioctl)(watcher, UFFDIO_WRITEPROTECT, &protection) != 0) {
        REAL(ioctl)(watcher, UFFDIO_UNREGISTER, &watched.range);
        is_frozen = false;
    }
    errno = saved;
    return is_frozen;
}

/* After the pages were replaced, or not. `is_frozen`: from freeze. Preserves errno. */
static void thaw(bool is_frozen, uint64_t address, uint64_t length)
{
    if (!is_frozen)
        return;
    const int saved = errno;
    struct uffdio_writeprotect writable = {.range = {address, length}};
    struct uffdio_range range = {address, length};
    /* Both fail, or do nothing, if the pages were replaced. */
    REAL(ioctl)(watcher, UFFDIO_WRITEPROTECT, &writable);
    REAL(ioctl)(watcher, UFFDIO_UNREGISTER, &range);
    REAL(ioctl)(watcher, UFFDIO_WAKE, &range);
    errno = saved;
}

/* Copies `length` bytes between memory and a file by `call`, pread or pwrite. 0 or -errno. */
static int copy_file(long call, int fd, uint64_t address, uint64_t length, uint64_t offset)
{
    while (length > 0) {
        sanitizers_ignore(true);
        const long moved = early_syscall(call, fd, (long)address, (long)length, (long)offset, 0, 0);
        sanitizers_ignore(false);
        if (moved <= 0)
            return moved < 0 ? -errno : -EFAULT;
        address += (uint64_t)moved;
        length -= (uint64_t)moved;
        offset += (uint64_t)moved;
    }
    return 0;
}

/* Copies pages, by the kernel: the program may have unmapped them. False: it has, or permits no reading. */
static bool copy_pages(void *to, uint64_t address, uint64_t length)
{
    const struct iovec local = {to, length}, remote = {pointer(address), length};
    const long copied =
        early_syscall(SYS_process_vm_readv, getpid(), (long)&local, 1, (long)&remote, 1, 0);
    if (copied < 0 && errno != EFAULT)
        memcpy(to, pointer(address), length); /* the call is forbidden here */
    return copied == (long)length || (copied < 0 && errno != EFAULT);
}

/*
 * The pages become private anonymous memory, with the same content. What the program has unmapped, or made unreadable,
 * stays as it is.
 */
static void make_ordinary(const struct adopted *range)
{
    const int protection = PROT_READ | PROT_WRITE, flags = MAP_PRIVATE | MAP_ANONYMOUS, saved = errno;
    const bool is_frozen = freeze(range->address, range->length);
    void *copy = REAL(mmap)(NULL, range->length, protection, flags, -1, 0);
    bool is_done = false, is_readable = true;
    if (copy != MAP_FAILED) {
        is_readable = copy_pages(copy, range->address, range->length);
        is_done = is_readable && early_syscall(SYS_mremap, (long)copy, (long)range->length, (long)range->length,
                                MREMAP_MAYMOVE | MREMAP_FIXED, (long)range->address, 0) == (long)range->address;
        if (!is_done)
            early_syscall(SYS_munmap, (long)copy, (long)range->length, 0, 0, 0, 0);
    }
    /* Too many mappings (vm.max_map_count). In place no more are needed, but other threads may see zeros in between. */
    const int file = is_done || !is_readable ? -1 : file_of(range);
    if (file >= 0 && !range->is_private &&
        REAL(mmap)(pointer(range->address), range->length, protection, flags | MAP_FIXED, -1, 0) != MAP_FAILED)
        copy_file(SYS_pread64, file, range->address, range->length, range->offset);
    thaw(is_frozen, range->address, range->length);
    errno = saved;
    if (is_readable)
        return;
    const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    struct adopted one = *range;
    for (one.length = page; range->length > page && one.address < range->address + range->length; one.address += page) {
        make_ordinary(&one);
        one.offset += page;
    }
}

/* Maps the file over the pages. 0 or -errno. */
static int adopt(int fd, const struct userdma_mapping *mapping)
{
    const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    const uint64_t last = mapping->address + mapping->length;
    const bool is_aligned = (mapping->address | mapping->length | mapping->offset) % page == 0;
    if (mapping->length == 0 || last < mapping->address || !is_aligned)
        return -EIO;
    if (fd_kind(fd) != FD_CONTEXT || fd_lookup(fd)->context != mapping->context)
        return -EBADF; /* another thread has closed `fd` */
    struct stat file;
    int error = REAL(fstat)(fd, &file) == 0 ? reserve() : -errno;
    if (error)
        return error;
    for (size_t i = count; i-- > 0;)
        if (ranges[i].address < last && mapping->address < ranges[i].address + ranges[i].length)
            forget(i); /* of a daemon that has ended: the program uses the memory for a new queue */
    /* Pages that were never touched cannot be protected. */
    for (uint64_t at = mapping->address; at < last; at += page)
        (void)*(const volatile char *)pointer(at);
    const bool is_frozen = freeze(mapping->address, mapping->length);
    /* The daemon has copied the pages already, but other threads may have stored to them since. */
    if (mapping->kind != USERDMA_MAPPING_ADOPT_WRITTEN)
        error = copy_file(SYS_pwrite64, fd, mapping->address, mapping->length, mapping->offset);
    if (error == 0 && REAL(mmap)(pointer(mapping->address), mapping->length, PROT_READ | PROT_WRITE,
                                 MAP_SHARED | MAP_FIXED, fd, (off_t)mapping->offset) == MAP_FAILED)
        error = -errno;
    thaw(is_frozen, mapping->address, mapping->length);
    if (error == 0)
        ranges[count++] = (struct adopted){
            .address = mapping->address,
            .length = mapping->length,
            .offset = mapping->offset,
            .context = mapping->context,
            .inode = file.st_ino,
        };
    return error;
}

/* Ends an adoption. Nothing happens if there is none: the context was closed, or this is a child. */
static void release(const struct userdma_mapping *mapping)
{
    for (size_t i = 0; i < count; i++) {
        const struct adopted *range = ranges + i;
        if (range->address == mapping->address && range->length == mapping->length &&
            range->offset == mapping->offset && range->context == mapping->context && !range->is_private) {
            make_ordinary(range);
            forget(i);
            return;
        }
    }
}

/* Returns a range of the context's file to the system. What cannot be returned the daemon zeroes. */
static void punch(const struct userdma_mapping *mapping)
{
    const int fd = fd_of_context(mapping->context, 0), saved = errno;
    if (fd >= 0)
        early_syscall(SYS_fallocate, fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (long)mapping->offset,
                      (long)mapping->length, 0, 0);
    errno = saved;
}

/* ---- for the other files ---- */

static void enter(struct shim_guard *guard)
{
    shim_guard_enter(guard);
    pthread_mutex_lock(&lock);
}

static void leave(const struct shim_guard *guard)
{
    pthread_mutex_unlock(&lock);
    shim_guard_leave(guard);
}

/* As enter and leave, for those who replace pages. */
static void begin(struct shim_guard *guard)
{
    enter(guard);
    __atomic_store_n(&adopted_is_replacing, true, __ATOMIC_RELAXED);
}

static void end(const struct shim_guard *guard)
{
    __atomic_store_n(&adopted_is_replacing, false, __ATOMIC_RELAXED);
    leave(guard);
}

void adopted_wait(void)
{
    /* Not by the lock: this may be a signal handler, or the child of a fork without handlers. */
    for (int yields = 0; yields < MAX_YIELDS && __atomic_load_n(&adopted_is_replacing, __ATOMIC_ACQUIRE); yields++)
        sched_yield();
}

bool adopted_froze(struct frozen_call *call)
{
    const unsigned before = __atomic_load_n(&freezes, __ATOMIC_ACQUIRE);
    if (LIKELY(errno != EFAULT) || before == call->freezes)
        return false;
    adopted_wait();
    call->freezes = before;
    errno = call->saved_errno;
    return true;
}

/* Work with the lock held, that of adopted_apply or of adopted_close. */
static struct {
    int fd;
    const struct userdma_mapping *mappings;
    size_t count;
    uint32_t context;
    int error;
} work;

static void apply(void)
{
    work.error = 0;
    for (size_t i = 0; i < work.count; i++)
        if (work.mappings[i].kind == USERDMA_MAPPING_RELEASE)
            release(work.mappings + i);
        else if (work.mappings[i].kind == USERDMA_MAPPING_PUNCH)
            punch(work.mappings + i);
        else if (work.error == 0)
            work.error = adopt(work.fd, work.mappings + i);
    for (size_t i = 0; work.error != 0 && i < work.count; i++)
        if (work.mappings[i].kind == USERDMA_MAPPING_ADOPT || work.mappings[i].kind == USERDMA_MAPPING_ADOPT_WRITTEN)
            release(work.mappings + i);
}

static void end_ranges(void)
{
    const bool is_known = find_mapped();
    for (size_t i = count; i-- > 0;)
        if (ranges[i].context == work.context) {
            if (!is_known || ranges[i].mapped == ranges[i].length)
                make_ordinary(ranges + i);
            forget(i);
        }
}

/* Whether the stack of this thread, from here downwards, may be in the range. */
static bool has_stack(uint64_t address, uint64_t length)
{
    const uint64_t here = (uintptr_t)__builtin_frame_address(0);
    return address <= here && here - address < length + OTHER_STACK_BYTES;
}

/* On another stack, if pages of ours are replaced: our stores to them would wait for ourselves. */
static void run(void (*body)(void), bool is_own_stack)
{
    static ucontext_t here, there;
    static uint8_t other_stack[OTHER_STACK_BYTES] __attribute__((aligned(64)));
    if (LIKELY(!is_own_stack)) {
        body();
        return;
    }
    getcontext(&there);
    there.uc_stack.ss_sp = other_stack;
    there.uc_stack.ss_size = sizeof other_stack;
    there.uc_link = &here;
    makecontext(&there, body, 0);
    swapcontext(&here, &there);
}

int adopted_apply(int fd, const struct userdma_mapping *mappings, size_t mapping_count)
{
    struct shim_guard guard;
    bool is_own_stack = false;
    for (size_t i = 0; i < mapping_count; i++)
        is_own_stack = is_own_stack || has_stack(mappings[i].address, mappings[i].length);
    begin(&guard);
    work.fd = fd;
    work.mappings = mappings; /* reads of a stack do not wait */
    work.count = mapping_count;
    run(apply, is_own_stack);
    const int error = work.error;
    end(&guard);
    return error;
}

void adopted_close(uint32_t context)
{
    if (LIKELY(__atomic_load_n(&count, __ATOMIC_RELAXED) == 0))
        return;
    struct shim_guard guard;
    bool is_own_stack = false;
    begin(&guard);
    for (size_t i = 0; i < count; i++)
        is_own_stack = is_own_stack || has_stack(ranges[i].address, ranges[i].length);
    work.context = context;
    if (fd_of_context(context, 0) < 0)
        run(end_ranges, is_own_stack);
    end(&guard);
}

void adopted_moved(int old_fd, int new_fd)
{
    if (watcher == old_fd)
        watcher = new_fd;
}

void adopted_before_fork(void)
{
    pthread_mutex_lock(&lock);
}

void adopted_after_fork(void)
{
    pthread_mutex_unlock(&lock);
}

IN_CHILD void adopted_in_child(void)
{
    static const pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;
    lock = fresh;
    adopted_is_replacing = false;
    if (watcher >= 0) {
        /* It is of the parent's memory. */
        fd_forget_hidden(watcher);
        REAL(close)(watcher);
        watcher = -1;
    }
    if (count == 0)
        return;
    const bool is_known = find_mapped();
    for (size_t i = count; i-- > 0;) {
        struct adopted *range = ranges + i;
        if (range->is_private)
            continue;
        const int file = file_of(range);
        if (is_known && range->mapped != range->length)
            forget(i); /* MADV_DONTFORK, or the program has unmapped it */
        else if (file >= 0 && REAL(mmap)(pointer(range->address), range->length, PROT_READ | PROT_WRITE,
                                         MAP_PRIVATE | MAP_FIXED, file, (off_t)range->offset) != MAP_FAILED)
            range->is_private = true;
        else {
            make_ordinary(range);
            forget(i);
        }
    }
}
