/*
 * Waits with a time limit: sleeps, descriptors, signals, messages. Each makes the machine's wait with its full length,
 * so that a keeper that has ended costs only time; the keeper ends it earlier when the clock jumps, and then the call
 * looks once more, without waiting.
 */
#define _GNU_SOURCE
#undef _FORTIFY_SOURCE
#include "clock.h"

#include <mqueue.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <threads.h>
#include <unistd.h>

/* ---- sleeps ---- */

/* Until `deadline` of CLOCK_MONOTONIC. 0, or EINTR after a signal of the program. */
static int sleep_until(int64_t deadline, void *frame)
{
    for (;;) {
        struct wait wait;
        clock_wait_begins(&wait, deadline, frame);
        const struct timespec until = to_timespec(deadline == NEVER ? NEVER / 4 : deadline - clock_offset());
        const int result = NEXT(clock_nanosleep)(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
        clock_wait_ends(&wait);
        /* Also if its time was over when the program's handler had ended. */
        if (result != 0 && !wait.is_over)
            return result;
        if (clock_now(CLOCK_MONOTONIC) >= deadline)
            return 0;
    }
}

static int sleep_for(const struct timespec *time, struct timespec *rest, void *frame)
{
    const int64_t deadline = clock_after(to_nanoseconds(time));
    const int result = sleep_until(deadline, frame);
    if (result != 0 && rest) {
        const int64_t left = deadline == NEVER ? to_nanoseconds(time) : deadline - clock_now(CLOCK_MONOTONIC);
        *rest = to_timespec(left > 0 ? left : 0);
    }
    return result;
}

#define FRAME __builtin_frame_address(0)

/*
 * After a wait that was not noted: of no time if it `is_look`, which then may have found `nothing`, else without limit.
 */
static void waited(bool is_look, bool nothing)
{
    if (!clock_page)
        return;
    const int saved = errno;
    if (!is_look)
        clock_acts();
    else if (nothing)
        userdma_clock_spins();
    errno = saved;
}

static inline bool is_zero(const struct timespec *time)
{
    return time && time->tv_sec == 0 && time->tv_nsec == 0;
}

/* The result of `call`, a wait of no time or without limit. */
#define UNNOTED(is_look, call)                                                                                         \
    ({                                                                                                                 \
        if (!(is_look))                                                                                                \
            clock_forget_left_wait(FRAME);                                                                             \
        const __typeof__(call) result = (call);                                                                        \
        waited(is_look, result == 0);                                                                                  \
        result;                                                                                                        \
    })

/* The kernel lets nobody sleep by these. */
static bool is_only_read(clockid_t clock)
{
    return clock == CLOCK_MONOTONIC_RAW || clock == CLOCK_REALTIME_COARSE || clock == CLOCK_MONOTONIC_COARSE;
}

EXPORT int clock_nanosleep(clockid_t clock, int flags, const struct timespec *time, struct timespec *rest)
{
    if (!clock_sleeps || !clock_is_moved(clock) || is_only_read(clock) || !is_valid(time))
        return NEXT(clock_nanosleep)(clock, flags, time, rest);
    if (flags & TIMER_ABSTIME)
        return sleep_until(clock_deadline(clock, to_nanoseconds(time)), FRAME);
    if (is_zero(time))
        return UNNOTED(true, NEXT(clock_nanosleep)(clock, flags, time, rest));
    return sleep_for(time, rest, FRAME);
}

EXPORT int nanosleep(const struct timespec *time, struct timespec *rest)
{
    if (!clock_sleeps || !is_valid(time))
        return NEXT(nanosleep)(time, rest);
    if (is_zero(time))
        return UNNOTED(true, NEXT(nanosleep)(time, rest));
    const int result = sleep_for(time, rest, FRAME);
    if (result == 0)
        return 0;
    errno = result;
    return -1;
}

EXPORT int usleep(useconds_t microseconds)
{
    if (!clock_sleeps)
        return NEXT(usleep)(microseconds);
    const struct timespec time = to_timespec(microseconds * MICROSECOND);
    return nanosleep(&time, NULL);
}

EXPORT unsigned sleep(unsigned seconds)
{
    if (!clock_sleeps)
        return NEXT(sleep)(seconds);
    const struct timespec time = {.tv_sec = seconds};
    struct timespec rest = {0};
    /*
     * As the C library's: a second that has begun counts as over, or `while (left) left = sleep(left)` might not end.
     */
    return nanosleep(&time, &rest) == 0 ? 0 : (unsigned)rest.tv_sec;
}

EXPORT int thrd_sleep(const struct timespec *time, struct timespec *rest)
{
    if (!clock_sleeps || !is_valid(time))
        return NEXT(thrd_sleep)(time, rest);
    return sleep_for(time, rest, FRAME) == 0 ? 0 : -1;
}

/* ---- descriptors ---- */

/*
 * The result of `call`, a wait of `length` nanoseconds, which a jump may end: then that of `look`, which does not wait.
 */
#define WAITED(length, call, look)                                                                                     \
    ({                                                                                                                 \
        struct wait wait;                                                                                              \
        const int saved = errno;                                                                                       \
        BEGINS(&wait, clock_after(length));                                                                            \
        __typeof__(call) waited = (call);                                                                              \
        if (clock_wait_ends(&wait) && waited < 0) {                                                                    \
            errno = saved;                                                                                             \
            waited = (look);                                                                                           \
        }                                                                                                              \
        waited;                                                                                                        \
    })

EXPORT int poll(struct pollfd *fds, nfds_t count, int milliseconds)
{
    if (!clock_sleeps || milliseconds <= 0)
        return UNNOTED(milliseconds == 0, NEXT(poll)(fds, count, milliseconds));
    return WAITED(milliseconds * MILLISECOND, NEXT(poll)(fds, count, milliseconds), NEXT(poll)(fds, count, 0));
}

int __poll_chk(struct pollfd *fds, nfds_t count, int milliseconds, size_t size);
EXPORT int __poll_chk(struct pollfd *fds, nfds_t count, int milliseconds, size_t size)
{
    if (!clock_sleeps || count > size / sizeof *fds)
        return NEXT(__poll_chk)(fds, count, milliseconds, size);
    return poll(fds, count, milliseconds);
}

static const struct timespec no_time;

/* A limit for which a wait has a deadline. */
static inline bool is_limit(const struct timespec *time)
{
    return clock_sleeps && time && is_valid(time) && (time->tv_sec != 0 || time->tv_nsec != 0);
}

EXPORT int ppoll(struct pollfd *fds, nfds_t count, const struct timespec *time, const sigset_t *mask)
{
    if (!is_limit(time))
        return UNNOTED(is_zero(time), NEXT(ppoll)(fds, count, time, mask));
    return WAITED(to_nanoseconds(time), NEXT(ppoll)(fds, count, time, mask), NEXT(ppoll)(fds, count, &no_time, mask));
}

int __ppoll_chk(struct pollfd *fds, nfds_t count, const struct timespec *time, const sigset_t *mask, size_t size);
EXPORT int __ppoll_chk(struct pollfd *fds, nfds_t count, const struct timespec *time, const sigset_t *mask, size_t size)
{
    if (!clock_sleeps || count > size / sizeof *fds)
        return NEXT(__ppoll_chk)(fds, count, time, mask, size);
    return ppoll(fds, count, time, mask);
}

/* An interrupted select leaves the sets as they were. */
EXPORT int pselect(int count, fd_set *read, fd_set *write, fd_set *except, const struct timespec *time,
                   const sigset_t *mask)
{
    if (!is_limit(time))
        return UNNOTED(is_zero(time), NEXT(pselect)(count, read, write, except, time, mask));
    return WAITED(to_nanoseconds(time), NEXT(pselect)(count, read, write, except, time, mask),
                  NEXT(pselect)(count, read, write, except, &no_time, mask));
}

EXPORT int select(int count, fd_set *read, fd_set *write, fd_set *except, struct timeval *time)
{
    if (!clock_sleeps || !time || time->tv_sec < 0 || time->tv_usec < 0 || (time->tv_sec == 0 && time->tv_usec == 0))
        return UNNOTED(time != NULL, NEXT(select)(count, read, write, except, time));
    const int64_t length = time->tv_sec >= LONGEST_WAIT / SECOND ? LONGEST_WAIT
                                                                   : time->tv_sec * SECOND + time->tv_usec * MICROSECOND;
    const int64_t begin = clock_now(CLOCK_MONOTONIC);
    struct timeval none = {0};
    const int result = WAITED(length, NEXT(select)(count, read, write, except, time),
                              NEXT(select)(count, read, write, except, &none));
    /* Linux stores the time that is left. */
    const int64_t left = begin + length - clock_now(CLOCK_MONOTONIC);
    *time = (struct timeval){0};
    if (left > 0 && result != 0)
        *time = (struct timeval){.tv_sec = left / SECOND, .tv_usec = left % SECOND / MICROSECOND};
    return result;
}

/* A wait that may be the daemon's. */
#define IN_DAEMON(call)                                                                                                \
    ({                                                                                                                 \
        const int found = (call);                                                                                      \
        if (UNLIKELY(clock_page && !clock_sleeps))                                                                     \
            clock_daemon_wakes();                                                                                      \
        found;                                                                                                         \
    })

EXPORT int epoll_wait(int epoll, struct epoll_event *events, int count, int milliseconds)
{
    if (!clock_sleeps || milliseconds <= 0)
        return IN_DAEMON(UNNOTED(milliseconds == 0, NEXT(epoll_wait)(epoll, events, count, milliseconds)));
    return WAITED(milliseconds * MILLISECOND, NEXT(epoll_wait)(epoll, events, count, milliseconds),
                  NEXT(epoll_wait)(epoll, events, count, 0));
}

EXPORT int epoll_pwait(int epoll, struct epoll_event *events, int count, int milliseconds, const sigset_t *mask)
{
    if (!clock_sleeps || milliseconds <= 0)
        return IN_DAEMON(UNNOTED(milliseconds == 0, NEXT(epoll_pwait)(epoll, events, count, milliseconds, mask)));
    return WAITED(milliseconds * MILLISECOND, NEXT(epoll_pwait)(epoll, events, count, milliseconds, mask),
                  NEXT(epoll_pwait)(epoll, events, count, 0, mask));
}

int epoll_pwait2(int epoll, struct epoll_event *events, int count, const struct timespec *time, const sigset_t *mask);
EXPORT int epoll_pwait2(int epoll, struct epoll_event *events, int count, const struct timespec *time,
                        const sigset_t *mask)
{
    if (!is_limit(time))
        return UNNOTED(is_zero(time), NEXT(epoll_pwait2)(epoll, events, count, time, mask));
    return WAITED(to_nanoseconds(time), NEXT(epoll_pwait2)(epoll, events, count, time, mask),
                  NEXT(epoll_pwait2)(epoll, events, count, &no_time, mask));
}

/* ---- sockets with SO_RCVTIMEO or SO_SNDTIMEO ---- */

EXPORT int setsockopt(int fd, int level, int name, const void *value, socklen_t size)
{
    if (clock_page && level == SOL_SOCKET && (name == SO_RCVTIMEO || name == SO_SNDTIMEO))
        __atomic_store_n(&clock_page->has_limits, 1, __ATOMIC_SEQ_CST);
    return NEXT(setsockopt)(fd, level, name, value, size);
}

/* Nanoseconds; 0: none. A copy, and a connection that was accepted, have the limit of the socket. */
static int64_t limit_of(int fd, int option)
{
    if (!clock_sleeps || !__atomic_load_n(&clock_page->has_limits, __ATOMIC_ACQUIRE))
        return 0;
    const int saved = errno;
    struct timeval limit = {0};
    socklen_t size = sizeof limit;
    if (getsockopt(fd, SOL_SOCKET, option, &limit, &size) != 0)
        limit = (struct timeval){0};
    errno = saved;
    return limit.tv_sec * SECOND + limit.tv_usec * MICROSECOND;
}

/* As WAITED, if the socket has this limit, and the call no flag MSG_DONTWAIT. The other end may have waited. */
#define LIMITED(fd, option, flags, call, look)                                                                         \
    do {                                                                                                               \
        const int64_t limit = (flags) & MSG_DONTWAIT ? 0 : limit_of(fd, option);                                       \
        const __typeof__(call) result = limit == 0 ? (call) : WAITED(limit, call, look);                               \
        if (result > 0)                                                                                                \
            clock_acts();                                                                                              \
        return result;                                                                                                 \
    } while (0)

EXPORT ssize_t read(int fd, void *buffer, size_t size)
{
    LIMITED(fd, SO_RCVTIMEO, 0, NEXT(read)(fd, buffer, size), NEXT(recv)(fd, buffer, size, MSG_DONTWAIT));
}

EXPORT ssize_t readv(int fd, const struct iovec *parts, int count)
{
    struct msghdr header = {.msg_iov = (struct iovec *)parts, .msg_iovlen = (size_t)count};
    LIMITED(fd, SO_RCVTIMEO, 0, NEXT(readv)(fd, parts, count), NEXT(recvmsg)(fd, &header, MSG_DONTWAIT));
}

EXPORT ssize_t recv(int fd, void *buffer, size_t size, int flags)
{
    LIMITED(fd, SO_RCVTIMEO, flags, NEXT(recv)(fd, buffer, size, flags), NEXT(recv)(fd, buffer, size, flags | MSG_DONTWAIT));
}

EXPORT ssize_t recvfrom(int fd, void *buffer, size_t size, int flags, struct sockaddr *from, socklen_t *length)
{
    LIMITED(fd, SO_RCVTIMEO, flags, NEXT(recvfrom)(fd, buffer, size, flags, from, length),
            NEXT(recvfrom)(fd, buffer, size, flags | MSG_DONTWAIT, from, length));
}

/* The kernel's times of a message that has come, by SO_TIMESTAMP, are the machine's. */
static void move_times(struct msghdr *header)
{
    const int64_t moved = clock_now(CLOCK_REALTIME) - clock_real(CLOCK_REALTIME);
    for (struct cmsghdr *head = CMSG_FIRSTHDR(header); head; head = CMSG_NXTHDR(header, head)) {
        const bool is_timeval = head->cmsg_type == SO_TIMESTAMP_OLD || head->cmsg_type == SO_TIMESTAMP_NEW;
        struct timespec time;
        if (head->cmsg_level != SOL_SOCKET || head->cmsg_len < CMSG_LEN(sizeof time) ||
            (!is_timeval && head->cmsg_type != SO_TIMESTAMPNS_OLD && head->cmsg_type != SO_TIMESTAMPNS_NEW))
            continue;
        memcpy(&time, CMSG_DATA(head), sizeof time);
        if (is_timeval)
            time.tv_nsec *= MICROSECOND;
        time = to_timespec(to_nanoseconds(&time) + moved);
        if (is_timeval)
            time.tv_nsec /= MICROSECOND;
        memcpy(CMSG_DATA(head), &time, sizeof time);
    }
}

static ssize_t receive_message(int fd, struct msghdr *header, int flags)
{
    LIMITED(fd, SO_RCVTIMEO, flags, NEXT(recvmsg)(fd, header, flags), NEXT(recvmsg)(fd, header, flags | MSG_DONTWAIT));
}

EXPORT ssize_t recvmsg(int fd, struct msghdr *header, int flags)
{
    const ssize_t length = receive_message(fd, header, flags);
    if (UNLIKELY(length >= 0 && header->msg_controllen > 0 && clock_page && clock_offset() != 0))
        move_times(header);
    return length;
}

ssize_t __read_chk(int fd, void *buffer, size_t size, size_t space);
EXPORT ssize_t __read_chk(int fd, void *buffer, size_t size, size_t space)
{
    LIMITED(fd, SO_RCVTIMEO, 0, NEXT(__read_chk)(fd, buffer, size, space), NEXT(recv)(fd, buffer, size, MSG_DONTWAIT));
}

ssize_t __recv_chk(int fd, void *buffer, size_t size, size_t space, int flags);
EXPORT ssize_t __recv_chk(int fd, void *buffer, size_t size, size_t space, int flags)
{
    LIMITED(fd, SO_RCVTIMEO, flags, NEXT(__recv_chk)(fd, buffer, size, space, flags),
            NEXT(recv)(fd, buffer, size, flags | MSG_DONTWAIT));
}

ssize_t __recvfrom_chk(int fd, void *buffer, size_t size, size_t space, int flags, struct sockaddr *from,
                       socklen_t *length);
EXPORT ssize_t __recvfrom_chk(int fd, void *buffer, size_t size, size_t space, int flags, struct sockaddr *from,
                              socklen_t *length)
{
    LIMITED(fd, SO_RCVTIMEO, flags, NEXT(__recvfrom_chk)(fd, buffer, size, space, flags, from, length),
            NEXT(recvfrom)(fd, buffer, size, flags | MSG_DONTWAIT, from, length));
}

/* A poll without waiting says whether a connection has come. */
static int accept_now(int fd, struct sockaddr *from, socklen_t *length, int flags)
{
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    if (NEXT(poll)(&ready, 1, 0) > 0)
        return NEXT(accept4)(fd, from, length, flags);
    errno = EAGAIN;
    return -1;
}

EXPORT int accept(int fd, struct sockaddr *from, socklen_t *length)
{
    LIMITED(fd, SO_RCVTIMEO, 0, NEXT(accept)(fd, from, length), accept_now(fd, from, length, 0));
}

EXPORT int accept4(int fd, struct sockaddr *from, socklen_t *length, int flags)
{
    LIMITED(fd, SO_RCVTIMEO, 0, NEXT(accept4)(fd, from, length, flags), accept_now(fd, from, length, flags));
}

EXPORT ssize_t send(int fd, const void *buffer, size_t size, int flags)
{
    LIMITED(fd, SO_SNDTIMEO, flags, NEXT(send)(fd, buffer, size, flags), NEXT(send)(fd, buffer, size, flags | MSG_DONTWAIT));
}

EXPORT ssize_t sendmsg(int fd, const struct msghdr *header, int flags)
{
    LIMITED(fd, SO_SNDTIMEO, flags, NEXT(sendmsg)(fd, header, flags), NEXT(sendmsg)(fd, header, flags | MSG_DONTWAIT));
}

EXPORT ssize_t sendto(int fd, const void *buffer, size_t size, int flags, const struct sockaddr *to, socklen_t length)
{
    LIMITED(fd, SO_SNDTIMEO, flags, NEXT(sendto)(fd, buffer, size, flags, to, length),
            NEXT(sendto)(fd, buffer, size, flags | MSG_DONTWAIT, to, length));
}

EXPORT ssize_t writev(int fd, const struct iovec *parts, int count)
{
    const struct msghdr header = {.msg_iov = (struct iovec *)parts, .msg_iovlen = (size_t)count};
    LIMITED(fd, SO_SNDTIMEO, 0, NEXT(writev)(fd, parts, count), NEXT(sendmsg)(fd, &header, MSG_DONTWAIT));
}

EXPORT ssize_t write(int fd, const void *buffer, size_t size)
{
    LIMITED(fd, SO_SNDTIMEO, 0, NEXT(write)(fd, buffer, size), NEXT(send)(fd, buffer, size, MSG_DONTWAIT));
}

/* ---- signals, semaphores, messages ---- */

EXPORT int sigtimedwait(const sigset_t *set, siginfo_t *info, const struct timespec *time)
{
    if (!is_limit(time))
        return NEXT(sigtimedwait)(set, info, time);
    return WAITED(to_nanoseconds(time), NEXT(sigtimedwait)(set, info, time), NEXT(sigtimedwait)(set, info, &no_time));
}

EXPORT int semtimedop(int id, struct sembuf *operations, size_t count, const struct timespec *time)
{
    if (!is_limit(time))
        return NEXT(semtimedop)(id, operations, count, time);
    return WAITED(to_nanoseconds(time), NEXT(semtimedop)(id, operations, count, time),
                  NEXT(semtimedop)(id, operations, count, &no_time));
}

/*
 * The kernel restarts the wait, with the time in the slot, which then is past. Without a time the wait has no limit;
 * the header says otherwise to compilers.
 */
#define QUEUED(time, call)                                                                                             \
    do {                                                                                                               \
        struct wait wait;                                                                                              \
        const struct timespec *volatile const given = time;                                                            \
        if (!clock_sleeps || !given || !is_valid(time) ||                                                              \
            !BEGINS(&wait, clock_deadline(CLOCK_REALTIME, to_nanoseconds(time)))) {                                    \
            const struct timespec *const limit = time;                                                                 \
            return call;                                                                                               \
        }                                                                                                              \
        struct timespec *const until = &wait.slot->until;                                                              \
        *until = to_timespec(clock_to_real(CLOCK_REALTIME, to_nanoseconds(time)));                                                   \
        const struct timespec *limit = until;                                                                          \
        ssize_t result = call;                                                                                         \
        const int saved = errno;                                                                                       \
        if (clock_wait_ends(&wait) && result < 0 && saved == EINTR) {                                                  \
            const struct timespec past = {.tv_nsec = 1};                                                               \
            limit = &past;                                                                                             \
            return call;                                                                                               \
        }                                                                                                              \
        errno = saved;                                                                                                 \
        return result;                                                                                                 \
    } while (0)

EXPORT ssize_t mq_timedreceive(mqd_t queue, char *buffer, size_t size, unsigned *priority, const struct timespec *time)
{
    QUEUED(time, NEXT(mq_timedreceive)(queue, buffer, size, priority, limit));
}

EXPORT int mq_timedsend(mqd_t queue, const char *buffer, size_t size, unsigned priority, const struct timespec *time)
{
    QUEUED(time, NEXT(mq_timedsend)(queue, buffer, size, priority, limit));
}
