/*
 * The session's lock, requests and replies, for those who send requests of their own.
 */
#ifndef USERDMA_SESSION_REQUESTS_H
#define USERDMA_SESSION_REQUESTS_H

#include "session.h"

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
        union userdma_preload_event event;
        struct userdma_doorbells doorbells;
        struct userdma_not_mapped not_mapped;
        struct userdma_fault_id fault_id;
        struct userdma_findings_from findings;
    };
};

struct reply {
    struct {
        struct userdma_header header;
        union {
            struct userdma_hello_reply hello;
            struct userdma_open_reply open;
            struct userdma_fault_reply fault;
            struct userdma_finding_reply finding;
            struct {
                struct userdma_call_reply call;
                union {
                    struct userdma_install installs[USERDMA_MESSAGE_DESCRIPTORS];
                    struct userdma_written_range ranges[USERDMA_MESSAGE_RANGES];
                };
            };
        };
    } message;
    /* Bytes after the header. */
    size_t body;
    /* Attached descriptors, close-on-exec. */
    int fds[USERDMA_MESSAGE_DESCRIPTORS];
    unsigned fd_count;
    /* `session_generation` of the reply's connection. */
    uint16_t generation;
    /* Descriptors were lost: this process may not have more. */
    bool is_truncated;
};

/*
 * Takes the connection's lock and blocks signals (struct shim_guard). False with errno EIO if this thread holds the
 * lock. session_leave preserves errno.
 */
bool session_enter(struct shim_guard *guard);
void session_leave(const struct shim_guard *guard);

/*
 * With the lock held: opens a connection if there is none, and with `must_be_alive` also if the daemon has closed the
 * connection. False after a failure.
 */
bool session_ensure_connected(const struct shim_guard *guard, bool must_be_alive);
bool session_is_connected(void);
/*
 * With the lock held, before a request about `fd`: opens a connection if there is none. If `fd` is a context, attaches
 * the context to the session. 0 or -errno.
 */
int session_prepare(int fd, const struct shim_guard *guard);
/* After session_ensure_connected failed: the reason, as -EACCES, -EMFILE, -ENFILE or -EIO. */
int session_refusal(void);
/* The reason as an errno for callers that look for devices: EMFILE, ENFILE, else ENOENT. */
int session_no_device_errno(void);
/* The number of the connection. Contexts that were opened or attached on another connection must be attached again. */
uint16_t session_generation(void);

/*
 * With the lock held and a connection: sends a request with `body` bytes after the header, and waits for the reply. 0
 * or -errno: EIO if the daemon has ended or answers wrongly, EMFILE if this process may not have the reply's
 * descriptors, ETIMEDOUT only for HELLO.
 */
int session_exchange(struct request *request, size_t body, struct reply *reply, const struct shim_guard *guard);

/* With the lock held: tells sanitizers what the daemon has written (written.c). */
void session_tell_written(const struct shim_guard *guard);

/* Why the daemon has no userfaultfd of this process, an errno; 0: it has one. */
extern int session_userfaultfd_refusal;

/* Closes the descriptors that a reply still has. */
void reply_close_all(struct reply *reply);

/* ---- users.c ---- */

/* Writes "user N", or that the user is outside this user namespace. */
void user_text(uid_t user, char *text, size_t size);
/* The number of a user of this user namespace in the parent namespace. */
uid_t outer_user(uid_t user);

#endif
