/*
 * The connection to the daemon, for the files that share its state:
 *
 *   session.c      the lock, the connection's socket, fork
 *   connect.c      connects and exchanges HELLO
 *   exchange.c     sends one request and receives its reply
 *   slot.c         both in shared memory
 *   detached.c     calls to a daemon that does not answer: they wait without the lock
 *   diagnostics.c  writes to standard error why there is no device
 *   providers.c    libibverbs without the provider of the daemon's devices
 */
#ifndef USERDMA_CONNECTION_H
#define USERDMA_CONNECTION_H

#include "parts.h"
#include "requests.h"

/* After this many seconds without an answer, signals are unblocked and the lock is released. */
#define UNBLOCK_SECONDS 2

struct session {
    /* The socket; -1 without a connection. */
    int fd;
    /* Identity of the socket. Another identity at `fd`: the program has closed the socket. */
    dev_t dev;
    ino_t ino;
    /* Counts the connections, also a child's after a fork; 0 before the first. */
    uint16_t generation;
    /* Number of the last request, never 0. */
    uint32_t serial;
    /* The call slot; NULL: the connection has none. */
    char *slot;
    /* Whether the thread with the lock is in a vfork child. */
    bool is_in_vfork_child;
    /* The user whom the daemon serves on this connection. */
    uid_t user;
    /* The folder of the daemon's tree. */
    char root[sizeof(((struct userdma_hello_reply *)0)->root)];
};
extern struct session session;
extern pthread_mutex_t session_lock;
/*
 * Takes the lock; the caller has blocked signals (shim_guard_enter). False if this thread holds the lock. First runs
 * the fork handler of a child, if fork did not.
 */
bool session_take_lock(void);
/* This thread's number, as from gettid(2); 0 until its first request. */
extern __thread pid_t session_thread_id __attribute__((tls_model("initial-exec")));

/* `fd`, a hidden socket, becomes the connection. */
void session_take_socket(int fd);
/* Forgets the socket without closing it. */
void session_forget_socket(void);
/* Forgets the socket if the program has closed it: the number may be another file's. */
void session_check_socket(void);
/* Closes the connection, if there is one. */
void session_disconnect(void);

/* ---- connect.c ---- */

/* Connects to the daemon. There must be no connection. False after a failure: session_refusal has the reason. */
bool session_connect(const struct shim_guard *guard);

/* ---- exchange.c ---- */

/* Like session_exchange. Also sends the descriptor `attached` and closes it, unless it is -1. */
int session_exchange_with(struct request *request, size_t body, int attached, struct reply *reply,
                          const struct shim_guard *guard);

/* ---- slot.c ---- */

/* Maps the memory file of the connection's slot. No effect if that fails. */
void slot_take(int file);
void slot_unmap(char **slot);
/* Puts a request into the slot. False if there is no slot, or the request is too long for it. */
bool slot_ask(const struct request *request);
/* After slot_ask: whether the daemon must be told by CALL. */
bool slot_needs_call(void);
/* USERDMA_ANSWER_… */
uint32_t slot_answer(void);
/* The thread no longer looks for the answer. False if the answer is in the slot. */
bool slot_await_socket(void);
/* Takes an answer, with what the call has written. Its length, or 0 if it is malformed. */
ssize_t slot_read(struct reply *reply);
/* After an answer by the socket: copies the results on the stack. False if the slot is invalid. */
bool slot_take_outputs(const char *slot);

/* ---- detached.c ---- */

/*
 * Waits for the next message on connection `*fd`, without the lock and with the program's signal mask and cancel state.
 * If many calls wait already, it waits with the lock. Meanwhile the connection belongs to this thread, and may get
 * another number in `*fd`. Afterwards the session has the connection again, unless another one was opened. False if
 * nothing arrived before `deadline` (as shim_nanoseconds; UINT64_MAX: no limit). True also after a signal. If a signal
 * handler has forked, in the child: true, and `*fd` is -1.
 */
bool detached_wait(int *fd, char **own_slot, const struct shim_guard *guard, uint64_t deadline);
/* Closes the connections of this thread's calls that siglongjmp has left. `frame`: address of the caller's frame. */
void detached_close_abandoned(uintptr_t frame);
/* In the child of a fork: closes all connections of detached calls. */
void detached_close_all(void);
/* A connection's socket was moved to another number. */
void detached_moved(int old_fd, int new_fd);

/* ---- diagnostics.c ---- */

/* Each prints a line on standard error. The process, with its later children, prints at most one of these lines. */

/* This thread prints no line. */
extern __thread bool diagnostics_are_silent __attribute__((tls_model("initial-exec")));
/* No daemon: `reason` completes the sentence. */
void diagnose_no_daemon(const char *reason);
/* The daemon has another version of the session protocol. */
void diagnose_other_version(void);
/* The daemon runs neither as root nor as our user. */
void diagnose_untrusted_daemon(uid_t daemon_user);
/* The effective user may not enter the folder of the socket, or the daemon does not serve this user. */
void diagnose_refused_user(void);
/* The daemon, which runs as `daemon_user`, may not access our memory. */
void diagnose_memory_access(const struct ucred *daemon);
/* The libibverbs at the path `verbs` has no provider for the device, whose provider's name has `driver`. */
void diagnose_no_provider(const char *device, const char *driver, const char *verbs);

/* ---- providers.c ---- */

/* Whether this process, or one that it was forked from, has opened a device. */
extern bool session_has_opened;

#endif
