/*
 * Calls that wait without the session's lock, because the daemon has not answered for UNBLOCK_SECONDS. Each call owns
 * the connection of its answer. Other threads open another connection.
 *
 * Signals are unblocked, so siglongjmp in a handler, or cancellation, may end a wait. The call cannot close its
 * connection then. The connection is closed at the thread's next request (siglongjmp), or when another call has to wait
 * (ended threads).
 */
#define _GNU_SOURCE
#include "connection.h"

#include <errno.h>
#include <poll.h>

/* Further calls keep the lock while they wait. */
#define MAX_DETACHED_CALLS 16

static struct detached_call {
    /* The connection; 0: the entry is free (descriptors of ours have high numbers). */
    int fd;
    pid_t thread;
    /* A word in the stack frame of detached_wait. Contains `stamp` while the call waits. */
    const volatile uint64_t *frame;
    uint64_t stamp;
    /* That of the connection. */
    char *slot;
} calls[MAX_DETACHED_CALLS];

/* A bit for each of this thread's entries in `calls`. */
static __thread unsigned calls_of_thread __attribute__((tls_model("initial-exec")));
_Static_assert(MAX_DETACHED_CALLS <= 8 * sizeof calls_of_thread, "a bit for each call");

static void close_call(struct detached_call *call)
{
    fd_forget_hidden(call->fd);
    REAL(close)(call->fd);
    call->fd = 0;
    slot_unmap(&call->slot);
}

/* A word of our memory; 0 if unmapped, such as the freed stack of a coroutine. */
static uint64_t word_at(const volatile uint64_t *address)
{
    uint64_t word = 0;
    struct iovec local = {.iov_base = &word, .iov_len = sizeof word};
    struct iovec remote = {.iov_base = (void *)address, .iov_len = sizeof word};
    if (process_vm_readv(getpid(), &local, 1, &remote, 1, 0) == sizeof word)
        return word;
    if (errno == EFAULT)
        return 0;
    /* In a sandbox that forbids process_vm_readv. */
    unsigned char residency;
    const uintptr_t page = (uintptr_t)address & -(uintptr_t)sysconf(_SC_PAGESIZE);
    return mincore((void *)page, sizeof word, &residency) == 0 ? *address : 0;
}

/*
 * Whether siglongjmp has left a call of this thread. If the call still waits, we run in a signal handler, whose frames
 * have lower addresses than the call's, or are on a signal stack. A call was also left if its frame was overwritten.
 * `frame`: of the caller.
 */
static bool is_abandoned(const struct detached_call *call, uintptr_t frame)
{
    if (frame > (uintptr_t)call->frame && !shim_on_signal_stack())
        return true;
    return word_at(call->frame) != call->stamp;
}

void detached_close_abandoned(uintptr_t frame)
{
    if (LIKELY(calls_of_thread == 0))
        return;
    for (unsigned i = 0; i < MAX_DETACHED_CALLS; i++) {
        if (!(calls_of_thread & 1u << i) || !is_abandoned(&calls[i], frame))
            continue;
        calls_of_thread &= ~(1u << i);
        close_call(&calls[i]);
    }
}

static void close_calls_of_ended_threads(void)
{
    for (unsigned i = 0; i < MAX_DETACHED_CALLS; i++)
        if (calls[i].fd != 0 && syscall(SYS_tgkill, shim_pid, calls[i].thread, 0) != 0 && errno == ESRCH)
            close_call(&calls[i]);
}

IN_CHILD void detached_close_all(void)
{
    calls_of_thread = 0;
    for (unsigned i = 0; i < MAX_DETACHED_CALLS; i++)
        if (calls[i].fd != 0) {
            calls[i].slot = NULL; /* not inherited */
            close_call(&calls[i]);
        }
}

void detached_moved(int old_fd, int new_fd)
{
    for (unsigned i = 0; i < MAX_DETACHED_CALLS; i++)
        if (calls[i].fd == old_fd)
            calls[i].fd = new_fd;
}

static struct detached_call *find_free_call(void)
{
    for (unsigned i = 0; i < MAX_DETACHED_CALLS; i++)
        if (calls[i].fd == 0)
            return &calls[i];
    return NULL;
}

/*
 * Waits for data on `fd`; false after the deadline, true also after a signal. `mask`: the signal mask during the wait;
 * NULL: the thread's.
 */
static bool wait_until(int fd, uint64_t deadline, const sigset_t *mask)
{
    const uint64_t now = shim_nanoseconds(), left = deadline > now ? deadline - now : 0;
    const struct timespec limit = {.tv_sec = (time_t)(left / 1000000000), .tv_nsec = (long)(left % 1000000000)};
    struct pollfd poll = {.fd = fd, .events = POLLIN};
    return ppoll(&poll, 1, deadline == UINT64_MAX ? NULL : &limit, mask) != 0;
}

bool detached_wait(int *fd, char **own_slot, const struct shim_guard *guard, uint64_t deadline)
{
    /* The first stamp is a value that a frame does not contain by chance. */
    static uint64_t stamps = 0x7573657264ull << 24;
    volatile uint64_t frame = ++stamps;
    const uint16_t generation = session.generation;
    const bool was_session = session.fd == *fd;
    close_calls_of_ended_threads();
    struct detached_call *call = find_free_call();
    if (!call) {
        /* Signals stay blocked: siglongjmp would not release the lock. */
        return wait_until(*fd, deadline, NULL);
    }
    const unsigned bit = 1u << (call - calls);
    *call = (struct detached_call){.fd = *fd, .thread = session_thread_id, .frame = &frame, .stamp = frame, .slot = *own_slot};
    *own_slot = NULL;
    calls_of_thread |= bit;
    if (was_session) {
        call->slot = session.slot;
        session.slot = NULL;
        session.fd = -1;
    }
    pthread_mutex_unlock(&session_lock);
    pthread_setcancelstate(guard->cancel_state, NULL);
    const bool is_in_time = wait_until(*fd, deadline, &guard->mask);
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
    session_take_lock();
    frame = 0;
    if (!(calls_of_thread & bit)) {
        /* In the child of a signal handler's fork: the connection is the parent's. */
        *fd = -1;
        return true;
    }
    calls_of_thread &= ~bit;
    *fd = call->fd;
    call->fd = 0;
    if (was_session && session.fd < 0 && session.generation == generation) {
        session.fd = *fd;
        session.slot = call->slot;
    } else
        *own_slot = call->slot;
    call->slot = NULL;
    return is_in_time;
}
