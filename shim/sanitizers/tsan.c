/*
 * ThreadSanitizer: the sends of a queue pair are a fiber, a thread without a processor, its receives another one, and
 * what its peer does with the program's memory a third.
 * What a send or READ uses, its fiber accesses at the post; what a receive has got, at its completion, as of the time
 * of its post. So a store of the program between post and completion is a race with the fiber, and a store after the
 * poll is none.
 *
 * Each element of a request has an object of its own, the token, by which its poster, the fiber and its poller are
 * ordered. A device may read what it sends again until its completion, unless the peer has answered: receives of the
 * queue pair are after its reads until then. Messages order threads of the process too, coarsely: each receive is after
 * all sends that were posted before.
 *
 * A peer's accesses come after all that the program did before it could have told a peer (`told`). The program knows of
 * them by a receive of the same queue pair; by the completion of its own request that made them; by an atomic load of
 * one of their words, as small ones are atomic stores; and, if the peer is another process, coarsely by any receive, or
 * a call that may have waited for another process.
 */
#define _GNU_SOURCE
#include "sanitizers.h"

#include <infiniband/verbs.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "../recorder/locks.h"

/* A fiber takes about a megabyte. Further queues share one, which only hides races. */
#define FIBERS 64
/* An access of a peer is atomic up to so many bytes, and at both ends of a longer one. */
#define ATOMIC_BYTES 256
#define ATOMIC_END_BYTES 64
/* Of accesses up to this size each byte may be a flag; of longer ones each even one. */
#define FLAG_BYTES 64
/* A READ or atomic of up to this size may have found a later value than it was told with. */
#define LOOK_BYTES 16
/* Bytes of an element at its start, and at its end: of a gigabyte, TSan would use four, and take seconds. */
#define MOST_BYTES ((size_t)32 << 20)
/* Frames of the post in reports. */
#define FRAMES 16

static struct {
    void *(*create_fiber)(unsigned flags);
    void (*destroy_fiber)(void *fiber);
    void (*switch_to_fiber)(void *fiber, unsigned flags);
    void *(*get_current_fiber)(void);
    void (*set_fiber_name)(void *fiber, const char *name);
    void (*acquire)(const void *object);
    void (*release)(const void *object);
    void (*read_range)(const void *start, size_t bytes, void *pc);
    void (*write_range)(const void *start, size_t bytes, void *pc);
    void (*enter)(void *pc);
    void (*leave)(void);
    /* By the logarithm of their bytes. Not of the types that they have: they only add 0. */
    uint64_t (*add[4])(uintptr_t address, uint64_t value, int order);
    uint64_t (*load[4])(uintptr_t address, int order);
} tsan;

/* memory_order */
enum { ACQUIRE = 2, RELEASE = 3, ACQUIRE_RELEASE = 4 };

/* __tsan_switch_to_fiber_no_sync */
#define NO_SYNC 1

/* A fiber, and what receives of its queue pair acquire. The last one is of all further queues. */
enum role { SENDS, RECEIVES, PEER };
static struct device {
    void *fiber;
    int fd;
    enum role role;
    bool is_used;
    uint32_t number;
    /* Addresses that it has accessed are between these. */
    uintptr_t low, high;
    /* Of a peer: its last READ or atomic of up to LOOK_BYTES. */
    uintptr_t looked_at;
    size_t looked_bytes;
} devices[FIBERS + 1];

/*
 * A new fiber is after all that its maker has done. So this one, which is as old as the first context, makes the
 * others: they know of the program what they acquire.
 */
static void *maker;

/* One thread at a time is on a fiber. Not of the C library: TSan would order the threads by it. */
static uint32_t holder;
/* Released by posts of messages; by all that could tell a peer something; by accesses of peers. */
static char messages, told, landed;

bool tsan_detect(void)
{
    /* Go's runtime has functions of some of the names, with other arguments, but no fibers. */
    if (!(tsan.create_fiber = (__typeof__(tsan.create_fiber))sanitizer_symbol("__tsan_create_fiber")))
        return false;
#define FIND(member, name) (tsan.member = (__typeof__(tsan.member))sanitizer_symbol(name)) != NULL
    return FIND(destroy_fiber, "__tsan_destroy_fiber") && FIND(switch_to_fiber, "__tsan_switch_to_fiber") &&
           FIND(get_current_fiber, "__tsan_get_current_fiber") && FIND(set_fiber_name, "__tsan_set_fiber_name") &&
           FIND(acquire, "__tsan_acquire") && FIND(release, "__tsan_release") &&
           FIND(read_range, "__tsan_read_range_pc") && FIND(write_range, "__tsan_write_range_pc") &&
           FIND(enter, "__tsan_func_entry") && FIND(leave, "__tsan_func_exit") &&
           FIND(add[0], "__tsan_atomic8_fetch_add") && FIND(add[1], "__tsan_atomic16_fetch_add") &&
           FIND(add[2], "__tsan_atomic32_fetch_add") && FIND(add[3], "__tsan_atomic64_fetch_add") &&
           FIND(load[0], "__tsan_atomic8_load") && FIND(load[1], "__tsan_atomic16_load") &&
           FIND(load[2], "__tsan_atomic32_load") && FIND(load[3], "__tsan_atomic64_load");
#undef FIND
}

/* Never gives up: the holder may print a report for seconds. False: a signal handler has interrupted the holder. */
static bool enter(void)
{
    const uint32_t own = (uint32_t)threads_own();
    for (;;) {
        uint32_t none = 0;
        if (__atomic_compare_exchange_n(&holder, &none, own, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
            return true;
        if (none == own)
            return false;
        sched_yield();
    }
}

static void leave(void)
{
    __atomic_store_n(&holder, 0, __ATOMIC_RELEASE);
}

/*
 * TSan runs handlers later, in a function of its own that the interrupted thread calls: a fiber calls none. Signals of
 * the thread's own faults stay. By a call that TSan does not see.
 */
static uint64_t block_signals(void)
{
#define BIT(signal) (1ull << ((signal)-1))
    const uint64_t all = ~(BIT(SIGSEGV) | BIT(SIGBUS) | BIT(SIGILL) | BIT(SIGFPE) | BIT(SIGTRAP) | BIT(SIGABRT));
#undef BIT
    uint64_t before = 0;
    syscall(SYS_rt_sigprocmask, SIG_BLOCK, &all, &before, sizeof before);
    return before;
}

static void restore_signals(uint64_t before)
{
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &before, NULL, sizeof before);
}

/* The device of a queue pair; NULL: there is none. With `should_create`, and the lock, a new one. */
static struct device *device_of(struct device_queue queue, enum role role, bool should_create)
{
    struct device *device = devices;
    for (; device < devices + FIBERS && __atomic_load_n(&device->is_used, __ATOMIC_ACQUIRE); device++)
        if (device->number == queue.number && device->fd == queue.fd && device->role == role)
            return device;
    if (!should_create)
        return device == devices + FIBERS ? device : NULL;
    if (device->is_used)
        return device;
    device->fd = queue.fd;
    device->role = role;
    device->number = queue.number;
    device->low = UINTPTR_MAX;
    __atomic_store_n(&device->is_used, true, __ATOMIC_RELEASE);
    return device;
}

/* With the lock. */
static void make_maker(void)
{
    if (!maker && (maker = tsan.create_fiber(0)))
        tsan.set_fiber_name(maker, "devices");
}

void tsan_opened(void)
{
    if (!enter())
        return;
    make_maker();
    leave();
}

static void *fiber_of(struct device *device)
{
    if (device->fiber)
        return device->fiber;
    char name[64], copy[sizeof name] = {0};
    const char *const of = sanitizers_device(device->fd);
    for (size_t i = 0; i + 1 < sizeof copy && of[i]; i++)
        copy[i] = of[i];
    if (device == devices + FIBERS)
        snprintf(name, sizeof name, "devices, further queue pairs");
    else
        snprintf(name, sizeof name, "device %.20s, %s of QP 0x%x", copy,
                 (const char *const[]){"sends", "receives", "the peer"}[device->role], device->number);
    void *const own = tsan.get_current_fiber();
    make_maker();
    tsan.switch_to_fiber(maker, NO_SYNC);
    device->fiber = tsan.create_fiber(0);
    tsan.switch_to_fiber(own, NO_SYNC);
    tsan.set_fiber_name(device->fiber, name);
    return device->fiber;
}

/* The program's frames at this post: those of this library are left out. */
static unsigned frames_here(void **frames)
{
    extern const char __ehdr_start[] HIDDEN, _end[] HIDDEN;
    void *all[FRAMES];
    unwind_find_stack();
    const unsigned count = unwind_frames(all, NULL, FRAMES);
    unsigned own = 0;
    while (own < count && (const char *)all[own] >= __ehdr_start && (const char *)all[own] < _end)
        own++;
    for (unsigned i = own; i < count; i++)
        frames[i - own] = all[i];
    return count - own;
}

/*
 * With the lock, as `device`: it will access memory, after all other devices that have accessed it: their order among
 * each other is not the program's.
 */
static void follow_others(struct device *device, uintptr_t start, size_t bytes)
{
    for (const struct device *other = devices; other <= devices + FIBERS && other->is_used; other++)
        if (other != device && (other->role == PEER || device->role == PEER || other == devices + FIBERS) &&
            other->low < start + bytes && start < other->high)
            tsan.acquire(&other->low);
    if (start < device->low)
        device->low = start;
    if (start + bytes > device->high)
        device->high = start + bytes;
}

/* As the device: accesses memory that the posters of its tokens have given it. */
static void access_as(struct device *device, const struct device_memory *list, uint32_t count)
{
    void *frames[FRAMES];
    const unsigned depth = frames_here(frames);
    const uint64_t signals = block_signals();
    void *const fiber = fiber_of(device), *const own = tsan.get_current_fiber();
    tsan.switch_to_fiber(fiber, NO_SYNC);
    for (uint32_t i = 0; i < count; i++) {
        tsan.acquire(list[i].token);
        follow_others(device, list[i].start, list[i].bytes);
    }
    for (unsigned i = depth; i > 1; i--)
        tsan.enter(frames[i - 1]);
    for (uint32_t i = 0; i < count; i++) {
        void (*const range)(const void *, size_t, void *) = list[i].is_written ? tsan.write_range : tsan.read_range;
        void *const pc = depth > 0 ? frames[0] : (void *)access_as;
        const char *const start = (const char *)list[i].start;
        const size_t bytes = list[i].bytes, part = bytes > 2 * MOST_BYTES ? MOST_BYTES : bytes;
        if (list[i].is_shared)
            continue;
        range(start, part, pc);
        if (part < bytes)
            range(start + bytes - part, part, pc);
    }
    for (unsigned i = depth; i > 1; i--)
        tsan.leave();
    for (uint32_t i = 0; i < count; i++) {
        tsan.release(list[i].token);
        tsan.release(list[i].region);
        if (!list[i].is_written)
            tsan.release(device);
    }
    tsan.release(&device->low);
    tsan.switch_to_fiber(own, NO_SYNC);
    restore_signals(signals);
}

void tsan_takes(struct device_queue queue, const struct device_memory *list, uint32_t count, bool has_message)
{
    if (has_message)
        tsan.release(&messages);
    tsan.release(&told);
    for (uint32_t i = 0; i < count; i++)
        tsan.release(list[i].token);
    if (count == 0 || !enter())
        return;
    access_as(device_of(queue, SENDS, true), list, count);
    leave();
}

void tsan_takes_receives(const struct device_memory *list, uint32_t count)
{
    tsan.release(&told);
    for (uint32_t i = 0; i < count; i++)
        tsan.release(list[i].token);
}

void tsan_arrives(struct device_queue queue, const struct device_memory *list, uint32_t count)
{
    if (count == 0 || !enter())
        return;
    access_as(device_of(queue, RECEIVES, true), list, count);
    leave();
}

/* The queue pair that one is connected to, if it is the program's, too; else NULL. */
static const struct device_pair *own_peer_of(uint32_t number)
{
    const struct device_pair *const pair = sanitizers_pair(number);
    return pair ? sanitizers_pair(pair->peer) : NULL;
}

void tsan_returns(const void *token)
{
    tsan.acquire(token);
}

void tsan_receives(struct device_queue queue)
{
    tsan.acquire(&messages);
    const struct device *const sends = device_of(queue, SENDS, false), *const peer = device_of(queue, PEER, false);
    if (sends)
        tsan.acquire(sends);
    if (peer)
        tsan.acquire(peer);
    if (!own_peer_of(queue.number))
        tsan.acquire(&landed);
}

/* ---- peers ---- */

/* Whether the memory can be accessed by this process. Its pages may not be what they were when it was registered. */
static bool is_accessible(uintptr_t address, bool is_written)
{
    static uint32_t none;
    if (is_written) /* adds 0 to a word, or fails */
        return syscall(SYS_futex, &none, FUTEX_WAKE_OP_PRIVATE, 0, NULL, address & ~(uintptr_t)3,
                       FUTEX_OP(FUTEX_OP_ADD, 0, FUTEX_OP_CMP_LT, 0)) >= 0;
    char byte;
    const struct iovec to = {&byte, 1}, from = {(void *)address, 1};
    return syscall(SYS_process_vm_readv, getpid(), &to, 1, &from, 1, 0) == 1;
}

/*
 * In words of up to 8 bytes, in their order. Each may be a flag, which tells of all before it, also if it is the end of
 * a longer one. What a READ finds may tell of all that the program did before.
 */
static inline __attribute__((always_inline)) void access_words(uint32_t access, uintptr_t start, size_t bytes)
{
    const bool is_written = access != IBV_ACCESS_REMOTE_READ;
    const uintptr_t end = start + bytes, page = (uintptr_t)sysconf(_SC_PAGESIZE);
    for (uintptr_t at = start; at < end; at = (at | (page - 1)) + 1)
        if (!is_accessible(at, is_written))
            return;
    for (uintptr_t longer = 2; is_written && longer <= 8; longer *= 2)
        if (start % longer != 0)
            tsan.release((const void *)(start & ~(longer - 1)));
    while (start < end) {
        unsigned size = 3;
        while (start & ((1u << size) - 1) || start + (1u << size) > end)
            size--;
        if (is_written) {
            tsan.add[size](start, 0, access == IBV_ACCESS_REMOTE_ATOMIC ? ACQUIRE_RELEASE : RELEASE);
            for (uintptr_t flag = start + 1; flag < start + (1u << size); flag++)
                if (bytes <= FLAG_BYTES || flag % 2 == 0 || flag + 1 == end)
                    tsan.release((const void *)flag);
        } else {
            tsan.load[size](start, ACQUIRE);
        }
        start += 1u << size;
    }
}

/* Its name is in reports. */
__attribute__((noinline)) void userdma_peer_accesses(uint32_t access, uintptr_t start, size_t bytes)
{
    void (*const range)(const void *, size_t, void *) =
        access == IBV_ACCESS_REMOTE_READ ? tsan.read_range : tsan.write_range;
    if (bytes <= ATOMIC_BYTES) {
        access_words(access, start, bytes);
        return;
    }
    const uintptr_t middle = (start + ATOMIC_END_BYTES) & ~(uintptr_t)7;
    const uintptr_t last = (start + bytes - ATOMIC_END_BYTES) & ~(uintptr_t)7;
    access_words(access, start, middle - start);
    range((const void *)middle, last - middle, (char *)userdma_peer_accesses + 1);
    access_words(access, last, start + bytes - last);
}

void tsan_peer(struct device_queue queue, uint32_t access, uintptr_t start, size_t bytes)
{
    if (bytes == 0 || !enter())
        return;
    struct device *const device = device_of(queue, PEER, true), *const sends = device_of(queue, SENDS, false);
    void *const fiber = fiber_of(device), *const own = tsan.get_current_fiber();
    tsan.switch_to_fiber(fiber, NO_SYNC);
    tsan.acquire(&told);
    if (sends)
        tsan.acquire(sends);
    /* What another process knew of the accesses that it had made by other queue pairs is not known. */
    if (!own_peer_of(queue.number))
        tsan.acquire(&landed);
    for (size_t i = 0; i < device->looked_bytes; i++)
        tsan.acquire((const void *)(device->looked_at + i));
    device->looked_at = start;
    device->looked_bytes = access == IBV_ACCESS_REMOTE_WRITE || bytes > LOOK_BYTES ? 0 : bytes;
    follow_others(device, start, bytes);
    userdma_peer_accesses(access, start, bytes);
    tsan.release(device);
    tsan.release(&device->low);
    tsan.release(&landed);
    tsan.switch_to_fiber(own, NO_SYNC);
    leave();
}

void tsan_accessed(struct device_queue queue)
{
    const struct device_pair *const peer = own_peer_of(queue.number);
    if (!peer)
        tsan.acquire(&landed);
    const struct device *const device =
        peer ? device_of((struct device_queue){.fd = peer->fd, .number = peer->number}, PEER, false) : NULL;
    if (device)
        tsan.acquire(device);
}

void tsan_tells(void)
{
    tsan.release(&told);
}

void tsan_hears(void)
{
    tsan.acquire(&landed);
}

/* With the lock. The next post makes its fiber again. */
static void destroy_fibers(void)
{
    for (struct device *device = devices; device <= devices + FIBERS; device++)
        if (device->fiber) {
            tsan.destroy_fiber(device->fiber);
            device->fiber = NULL;
        }
    if (maker)
        tsan.destroy_fiber(maker);
    maker = NULL;
}

/* A child that starts a thread ends if its parent had fibers. */
void tsan_before_fork(void)
{
    if (enter())
        destroy_fibers();
}

/* The thread that forks has the lock, in the child too; or a signal handler forks in a post, whose end leaves it. */
void tsan_after_fork(void)
{
    leave();
}

/* A process that ends waits a second for its fibers. */
void tsan_end(void)
{
    if (!enter())
        return;
    destroy_fibers();
    leave();
}
