/*
 * Interface of outstanding.c: what happens to requests, in the order in which it happens. Only if stacks are recorded.
 */
#ifndef USERDMA_OUTSTANDING_H
#define USERDMA_OUTSTANDING_H

#include <infiniband/verbs.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Posts, before the device can see them. `frame`: of the function that the program called. */
void outstanding_sends(const struct ibv_qp *qp, const struct ibv_send_wr *list, uintptr_t frame);
void outstanding_receives(int fd, uint32_t kind, uint32_t number, const struct ibv_recv_wr *list, uintptr_t frame);
/* A request that is built by ibv_wr_*, and its memory. */
void outstanding_built(const struct ibv_qp_ex *qp);
void outstanding_elements(const struct ibv_qp_ex *qp, const struct ibv_sge *list, size_t count, uintptr_t frame);
/* The last `count` requests were refused. */
void outstanding_refused(int fd, uint32_t kind, uint32_t number, uint32_t count);
/* Sends since the last signaled one. */
uint32_t outstanding_unsignaled(int fd, uint32_t number);

void outstanding_polled(int fd, uint32_t qpn, uint64_t wr_id, bool is_receive);
/* A queue was reset or destroyed. */
void outstanding_forget(int fd, uint32_t kind, uint32_t number);
/* A new context, perhaps with the descriptor of an earlier one. */
void outstanding_opened(int fd);

/* A post or poll begins: reports what its thread's returned frames show, and what waits. */
void outstanding_look(uintptr_t frame);
/* Reports what waits. Preserves errno. */
void outstanding_report(void);
/* A queue of a context is used, perhaps by a child of the one that opened it. */
void outstanding_use(int fd, uint32_t kind, uint32_t number);
/* Before a fork, and in the child. */
void outstanding_fork(void);
void outstanding_child(void);

#endif
