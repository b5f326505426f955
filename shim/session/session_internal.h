/*
 * Common parts of session.c (the connection) and context.c (the requests): one request, one reply, and the lock.
 */
#ifndef USERDMA_SESSION_INTERNAL_H
#define USERDMA_SESSION_INTERNAL_H

#include "../shim.h"

#include <pthread.h>

struct request {
    struct userdma_header header;
    union {
        struct userdma_hello hello;
        struct userdma_open open;
        struct userdma_ioctl ioctl;
        struct userdma_write write;
        struct userdma_map map;
        struct userdma_netlink netlink;
        struct userdma_refused refused;
        struct userdma_misuse misuse;
    };
};

struct reply {
    struct {
        struct userdma_header header;
        union {
            struct userdma_hello_reply hello;
            struct userdma_open_reply open;
            struct {
                struct userdma_call_reply call;
                union {
                    struct userdma_install installs[USERDMA_MESSAGE_DESCRIPTORS];
                    struct userdma_range ranges[USERDMA_MESSAGE_RANGES];
                };
            };
        };
    } message;
    /* Bytes after the header. */
    size_t body;
    /* Attached descriptors, close-on-exec. */
    int fds[USERDMA_MESSAGE_DESCRIPTORS];
    unsigned fd_count;
    /* The connection on which it arrived, as `session_generation`. */
    uint16_t generation;
    bool truncated;
};

/*
 * The lock of the connection, with its guard; false with EIO if this thread holds it already. Leaving it preserves
 * errno.
 */
bool session_enter(struct shim_guard *guard);
void session_leave(const struct shim_guard *guard);

/* With the lock held: a live connection, opened if necessary. `check_alive` also detects a daemon that closed it. */
bool session_ensure(const struct shim_guard *guard, bool check_alive);
bool session_connected(void);
/*
 * With the lock held: a session that knows the context of `fd`, or any session for a descriptor without a context. 0 or
 * -errno.
 */
int session_prepare(int fd, const struct shim_guard *guard);
/*
 * After a failed connect: the reason, as -EACCES, -EMFILE, -ENFILE or -EIO; as errno for callers that look for devices.
 */
int session_refusal(void);
int session_no_device(void);
/* The number of this connection; a context known to another one must be attached again. */
uint16_t session_generation(void);

/*
 * Sends a request with `body` bytes after its header, and waits for the reply. 0, or -errno: EIO (daemon gone),
 * EMFILE, ETIMEDOUT.
 */
int session_exchange(struct request *request, size_t body, struct reply *reply, const struct shim_guard *guard);

/* With the lock held: like valgrind_mark (shim.h). */
void valgrind_mark_locked(const struct shim_guard *guard);

/* Closes the remaining descriptors of a reply. */
void reply_close_all(struct reply *reply);

/* users.c. A user of this user namespace, and the number outside. */
void user_text(uid_t user, char *text, size_t size);
uid_t outer_user(uid_t user);

#endif
