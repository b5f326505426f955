/*
 * ThreadSanitizer: the sends of a queue pair are a fiber, a thread without a processor, and its receives another one.
 * What a send or READ uses, its fiber accesses at the post; what a receive has got, at its completion, as of the time
 * of its post. So a store of the program between post and completion is a race with the fiber, and a store after the
 * poll is none.
 *
 * Each element of a request has an object of its own, the token, by which its poster, the fiber and its poller are
 * ordered. A device may read what it sends again until its completion, unless the peer has answered: receives of the
 * queue pair are after its reads until then. Messages order threads of the process too, coarsely: each receive is after
 * all sends that were posted before.
 */
#define _GNU_SOURCE
#include "sanitizers.h"

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../recorder/locks.h"

/* A fiber takes about a megabyte. Further queues share one, which only hides races. */
#define FIBERS 64
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
} tsan;

/* __tsan_switch_to_fiber_no_sync */
#define NO_SYNC 1

/* A fiber, and what receives of its queue pair acquire. The last one is of all further queues. */
static struct device {
    void *fiber;
    int fd;
    bool receives, is_used;
    uint32_t number;
} devices[FIBERS + 1];

/*
 * A new fiber is after all that its maker has done. So this one, which is as old as the first context, makes the
 * others: they know of the program what they acquire.
 */
static void *maker;

/* One thread at a time is on a fiber. Not of the C library: TSan would order the threads by it. */
static uint32_t holder;
/* Released by posts of messages. */
static char messages;

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
           FIND(enter, "__tsan_func_entry") && FIND(leave, "__tsan_func_exit");
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
static struct device *device_of(struct device_queue queue, bool receives, bool should_create)
{
    struct device *device = devices;
    for (; device < devices + FIBERS && __atomic_load_n(&device->is_used, __ATOMIC_ACQUIRE); device++)
        if (device->number == queue.number && device->fd == queue.fd && device->receives == receives)
            return device;
    if (!should_create)
        return device == devices + FIBERS ? device : NULL;
    device->fd = queue.fd;
    device->receives = receives;
    device->number = queue.number;
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
    char name[64];
    if (device == devices + FIBERS)
        snprintf(name, sizeof name, "devices, further queue pairs");
    else
        snprintf(name, sizeof name, "device %s, %s of QP 0x%x", sanitizers_device(device->fd),
                 device->receives ? "receives" : "sends", device->number);
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

/* As the device: accesses memory that the posters of its tokens have given it. */
static void access_as(struct device *device, const struct device_memory *list, uint32_t count)
{
    void *frames[FRAMES];
    const unsigned depth = frames_here(frames);
    const uint64_t signals = block_signals();
    void *const fiber = fiber_of(device), *const own = tsan.get_current_fiber();
    tsan.switch_to_fiber(fiber, NO_SYNC);
    for (uint32_t i = 0; i < count; i++)
        tsan.acquire(list[i].token);
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
    tsan.switch_to_fiber(own, NO_SYNC);
    restore_signals(signals);
}

void tsan_takes(struct device_queue queue, const struct device_memory *list, uint32_t count, bool has_message)
{
    if (has_message)
        tsan.release(&messages);
    for (uint32_t i = 0; i < count; i++)
        tsan.release(list[i].token);
    if (count == 0 || !enter())
        return;
    access_as(device_of(queue, false, true), list, count);
    leave();
}

void tsan_takes_receives(const struct device_memory *list, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        tsan.release(list[i].token);
}

void tsan_arrives(struct device_queue queue, const struct device_memory *list, uint32_t count)
{
    if (count == 0 || !enter())
        return;
    access_as(device_of(queue, true, true), list, count);
    leave();
}

void tsan_returns(const void *token)
{
    tsan.acquire(token);
}

void tsan_receives(struct device_queue queue)
{
    tsan.acquire(&messages);
    const struct device *const device = device_of(queue, false, false);
    if (device)
        tsan.acquire(device);
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
