/*
 * What session.c (the connection) and context.c (what is asked over it) share: one request, one reply, and the lock.
 */
#ifndef USERDMA_SESSION_INTERNAL_H
#define USERDMA_SESSION_INTERNAL_H

#include "shim.h"

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
    /* Descriptors that came along, close-on-exec. */
    int fds[USERDMA_MESSAGE_DESCRIPTORS];
    unsigned fd_count;
    /* The connection that it came by, as `session_generation`. */
    uint16_t generation;
    bool truncated;
};

/*
 * The lock of the connection, with its guard; false with EIO if this thread holds it already. errno is kept by
 * leaving.
 */
bool session_enter(struct shim_guard *guard);
void session_leave(const struct shim_guard *guard);

/* With the lock held: a live connection, dialled if need be. `check_alive` also notices a daemon that hung up. */
bool session_ensure(const struct shim_guard *guard, bool check_alive);
bool session_connected(void);
/* After a dialling that failed: why, as -EACCES, -EMFILE, -ENFILE or -EIO; as errno for who looks for devices. */
int session_refusal(void);
int session_no_device(void);
/* The number of this connection; a context that was made known to another one must be attached. */
uint16_t session_generation(void);

/*
 * Sends a request with `body` bytes after its header, and waits for the reply. 0, or -errno: EIO (daemon gone),
 * EMFILE, ETIMEDOUT.
 */
int session_exchange(struct request *request, size_t body, struct reply *reply, const struct shim_guard *guard);

/* With the lock held: as valgrind_mark (shim.h). */
void valgrind_mark_locked(const struct shim_guard *guard);

/* Closes the descriptors that came with a reply and have not been taken. */
void reply_close_all(struct reply *reply);

/* users.c. A user of this user namespace, and what the number is outside. */
void user_text(uid_t user, char *text, size_t size);
uid_t outer_user(uid_t user);

#endif
