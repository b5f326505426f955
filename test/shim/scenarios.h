/*
 * Common parts of the scenarios (scenarios.c). fake-daemon.ts has the numbers of orders too.
 */
#ifndef SCENARIOS_H
#define SCENARIOS_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <setjmp.h>
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <infiniband/verbs.h>
#include <linux/close_range.h>
#include <linux/netlink.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define UNUSED __attribute__((unused))

#define NODE "/dev/infiniband/uverbs0"

#define EXPECT(condition)                                                                                              \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            dprintf(1, "%s, line %d: false: %s (errno %d)\n", __func__, __LINE__, #condition, errno);                  \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)
#define FAILS(call, error) EXPECT((errno = 0, (call) == -1) && errno == (error))

enum order {
    ECHO = 1,      /* returns the argument */
    FAIL,          /* fails with the argument as errno */
    EVENT_4,       /* creates an event descriptor; stores its number in 4 bytes at the argument's address */
    EVENT_8,       /* the same, in 8 bytes */
    PARK,          /* sets the parked word to the argument */
    RECORD,        /* sends a record of this many bytes on the last event descriptor */
    HANG_UP_EVENT, /* closes the daemon's end of the last event descriptor */
    DIE,           /* the daemon dies without an answer */
    CONTEXTS,      /* returns the number of contexts */
    DOORBELLS,     /* returns the number of doorbells on this context */
    LAST_HANDLE,   /* returns the queue pair's handle in the last doorbell */
    SESSIONS,      /* returns the number of connected processes */
    HOLD,          /* is never answered */
    EVENT_BEHIND,  /* as EVENT_4, but the number belongs 64 bytes after the argument's address */
    DRIVER_8,      /* as EVENT_8, for a descriptor of a driver */
    WRONG_SERIAL,  /* the reply is that of another call, and brings a descriptor */
    DELAY,         /* creates the file `delay` beside the socket; returns the argument after as many milliseconds */
    DELAY_ATTACH,  /* the next ATTACH creates the file `delay`, and is answered after as many milliseconds */
    END_SESSION,   /* the daemon closes the session's connection after the answer */
    DELAY_STACK,   /* the next STACK creates the file `delay`, and is answered after as many milliseconds */
};

/* Returns the daemon's answer, or -1 with errno. */
UNUSED static long order(int fd, enum order number, unsigned long argument)
{
    return ioctl(fd, _IOWR(0xdb, number, uint64_t), argument);
}

UNUSED static int open_device(void)
{
    int fd = open(NODE, O_RDWR | O_CLOEXEC);
    EXPECT(fd >= 0);
    return fd;
}

/* Numbers of hidden sockets begin at FIRST_HIDDEN (HIDDEN_BASE of shim/session/fds.c). */
enum { FIRST_HIDDEN = 900, HIDDEN_END = 1200 };

/* The shim's hidden sockets: one of the session, and a doorbell of each device descriptor. */
UNUSED static int hidden_count(void)
{
    int count = 0;
    struct stat stat;
    for (int fd = FIRST_HIDDEN; fd < HIDDEN_END; fd++)
        count += fstat(fd, &stat) == 0 && S_ISSOCK(stat.st_mode);
    return count;
}

UNUSED static void expect_exit_0(pid_t pid)
{
    int status;
    EXPECT(pid > 0 && waitpid(pid, &status, 0) == pid);
    EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* The expression must be true in a child. */
#define EXPECT_IN_CHILD(expression) expect_exit_0(fork() ?: (_exit((expression) ? 0 : 1), 0))

/* The doorbell of rxe's provider: a write command, struct ib_uverbs_post_send without requests. */
#define DOORBELL_BYTES 32

UNUSED static void fill_doorbell(uint32_t command[DOORBELL_BYTES / 4], uint32_t handle, uint32_t *response)
{
    memset(command, 0, DOORBELL_BYTES);
    *response = 77; /* the shim writes 0 */
    command[0] = 28;          /* IB_USER_VERBS_CMD_POST_SEND */
    command[1] = 8 | 1 << 16; /* in_words, out_words */
    memcpy(&command[2], &(uint64_t){(uintptr_t)response}, 8);
    command[4] = handle;
    command[7] = 128; /* wqe_size */
}

UNUSED static const uint32_t *doorbell(uint32_t handle)
{
    static __thread uint32_t command[DOORBELL_BYTES / 4], response;
    fill_doorbell(command, handle, &response);
    return command;
}

UNUSED static bool ring_doorbell(int fd, uint32_t handle)
{
    return write(fd, doorbell(handle), DOORBELL_BYTES) == DOORBELL_BYTES;
}

/* ---- scenarios_paths.c ---- */

void paths(void);
void relative_paths(void);
void directory_walks(void);
void folders_above(void);
void device_numbers(void);
void attribute_writes(void);
void old_stats(void);

/* ---- scenarios_bare.c ---- */

void bare_calls(void);
void spawns(void);
void spawned(const char *number, const char *copy);
void uring(void);

/* ---- scenarios_processes.c ---- */

void copies(void);
void close_on_exec(void);
void hidden_sockets(void);
void lost_sockets(void);
void low_limit(void);
void lowered_limit(void);
void full_table(void);
void truncated_hello(void);
void daemon_full(void);
void forks(void);
void half_copied(void);
void many_forks(void);
void exec(void);
void expect_reusable(int fd);
void exec_events(void);
void vforks(void);
void passed_descriptors(void);
void passed_and_closed(void);
void not_served(void);
void left_by_longjmp(void);
void late_attaches(void);
void attach_again(void);
void restarted_wait(void);
void late_hellos(void);
void late_stack(void);
void replaced_session(void);
void interrupted_call(void);
void unknown_child(void);
void sandbox(void);
void without_close_range(void);
void last_number(void);
void cancelled_threads(void);
void no_hello(void);
void no_hello_after_cancel(void);
void signals(void);
void threads(void);
/* The program's own path. `inherited…` run after exec, with numbers of inherited descriptors. */
extern const char *self;
void inherited(const char *number, const char *remaining);
void inherited_events(const char *number, const char *context);

#endif
