/*
 * What the files of this folder call of each other; connection.h has the connection.
 */
#ifndef USERDMA_PARTS_H
#define USERDMA_PARTS_H

#include "session.h"

/* ---- session.c, connect.c, context.c ---- */

/*
 * Makes a received context (FD_RECEIVED) known to this program's session. Returns 0 or -errno: ENODEV if the daemon
 * does not know the context, EACCES if the daemon does not serve us, EIO without a daemon, EMFILE or ENFILE.
 */
int session_attach(int fd);
/*
 * Opens a NETLINK_RDMA socket. Returns the program's end, close-on-exec, or -1 with errno: ENOENT without a daemon.
 * `type`: SOCK_RAW or SOCK_DGRAM.
 */
int session_netlink(unsigned type);
/* The socket of a connection has another number. With the session's lock held. */
void session_moved(int old_fd, int new_fd);

/* ---- arming.c ---- */

/* The context's descriptor was closed. */
void arming_forget(int fd);

/* ---- fds.c ---- */

/* Registers a descriptor. 0, or -1 with errno: EMFILE if the number is too high for the table. */
int fd_add(int fd, const struct fd_entry *entry);
/* `kind` FD_EVENT, FD_DRIVER, FD_CM, FD_UMAD or FD_NETLINK. */
int fd_add_event(int fd, enum fd_kind kind);
/* The kind for a USERDMA_INSTALL_…; FD_OTHER: unknown. */
static inline enum fd_kind fd_kind_installed(uint64_t install)
{
    return install == USERDMA_INSTALL_EVENT     ? FD_EVENT
           : install == USERDMA_INSTALL_DRIVER  ? FD_DRIVER
           : install == USERDMA_INSTALL_NETLINK ? FD_NETLINK
           : install == USERDMA_INSTALL_CM      ? FD_CM
           : install == USERDMA_INSTALL_UMAD    ? FD_UMAD
                                                : FD_OTHER;
}
/* Registers an FD_RECEIVED. `is_inherited`: by exec, not over a socket. */
int fd_add_received(int fd, bool is_inherited);
/* The first descriptor from `first` on of the context with this number; -1: none. */
int fd_of_context(uint32_t context, int first);
/* After fork, in the child. */
void fd_after_fork(void);
/* Marks a doorbell socket with the inode of its context's file, for programs that inherit both. */
void fd_mark(int hidden, ino_t inode);
/* Whether a descriptor has the mark of this inode. Changes errno. */
bool fd_has_mark(int fd, ino_t inode);

/* ---- netlink.c ---- */

/* After a receive: the sender on a NETLINK_RDMA socket is the kernel. `address_size`: of the program's buffer. */
void netlink_received(int fd, struct msghdr *message, socklen_t address_size);

/* ---- adopted.c ---- */

/*
 * Does what the mappings of an answer say, in their order; `fd`: the context of the call. 0 or -errno: then the ranges
 * to adopt are as before.
 */
int adopted_apply(int fd, const struct userdma_mapping *mappings, size_t mapping_count);
/* A descriptor of a context is no longer in the table. After the last one, the context's pages are ordinary memory. */
void adopted_close(uint32_t context);
/* Around a fork, in the parent and in the child; then in the child, also if its fork ran no handlers. */
void adopted_before_fork(void);
void adopted_after_fork(void);
/* A hidden descriptor has another number; -1: it is closed. With the lock of adopted_before_fork held. */
void adopted_moved(int old_fd, int new_fd);
void adopted_in_child(void);

/* ---- peers.c ---- */

/* Around a fork: meanwhile no thread tells sanitizers of peers. */
void peers_before_fork(void);
void peers_in_parent(void);
void peers_in_child(void);

/* ---- response_memory.c ---- */

/* Whether `width` bytes of a call's response may be stored at `address`. Other parameters: as of session_call. */
bool call_may_store(uint32_t type, uint64_t first, uint64_t second, uint64_t address, uint32_t width);

/* ---- device.c ---- */

/* Stores a descriptor number of `width` (4 or 8) bytes at an address of the program. 0 or -EFAULT. */
int shim_store(uint64_t address, uint32_t width, int value);

#endif
