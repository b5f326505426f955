/*
 * Functions for verbs.c, which wraps the provider's functions. Those of ../check/refused.c and ../check/batches.c are
 * called only under `userdma check`.
 */
#ifndef USERDMA_VERBS_OPS_H
#define USERDMA_VERBS_OPS_H

#include <infiniband/verbs.h>
#include <stdbool.h>

typedef int post_send_function(struct ibv_qp *, struct ibv_send_wr *, struct ibv_send_wr **);

/* ---- xrc.c ---- */

/* Sets open_xrcd, close_xrcd, get_srq_num and open_qp in a context's table. */
void xrc_add_operations(struct verbs_context *context);
/* Like ibv_create_qp_ex, for an XRC target (IBV_QPT_XRC_RECV). */
struct ibv_qp *xrc_create_target(struct ibv_context *context, struct ibv_qp_init_attr_ex *attributes);
/* Like ibv_post_send, for an XRC initiator (IBV_QPT_XRC_SEND): posts with `original`, SRQ numbers in the flags. */
int xrc_post_send(post_send_function *original, struct ibv_qp *qp, struct ibv_send_wr *list, struct ibv_send_wr **bad);

/* ---- refused.c: these report a request that was refused with `error`, and return `error` ---- */

/* `wr` NULL: it is unknown which request was refused. */
int refused_send(const struct ibv_qp *qp, const struct ibv_send_wr *wr, int error);
int refused_receive(const struct ibv_qp *qp, const struct ibv_recv_wr *wr, int error);
int refused_shared(const struct ibv_srq *srq, const struct ibv_recv_wr *wr, int error);
/* A send of which only the wr_id is known. */
int refused_request(const struct ibv_qp *qp, uint64_t wr_id, int error);

/* ---- faults.c ---- */

/* Whether fault rules may refuse posts: then each post asks. */
bool posts_may_fail(void);
/*
 * Asks the daemon about each request of a list. Returns 0, or the positive errno of the first that fails, `*failing`,
 * which follows `*before` (NULL: it is the first). Each asked request counts for the rules.
 */
int fault_in_sends(const struct ibv_qp *qp, struct ibv_send_wr *list, struct ibv_send_wr **before,
                   struct ibv_send_wr **failing);
int fault_in_receives(int fd, uint32_t queue, uint32_t number, struct ibv_recv_wr *list, struct ibv_recv_wr **before,
                      struct ibv_recv_wr **failing);
/* The errno with which ibv_wr_complete or ibv_bind_mw fails, or 0. A batch is one post of an unknown request. */
int fault_of_batch(const struct ibv_qp_ex *qp);
int fault_of_bind(const struct ibv_qp *qp, uint64_t wr_id);

/* ---- batches.c ---- */

/* Counts the requests that ibv_wr_* build on a new queue pair. `operations`: IBV_QP_EX_WITH_… of the queue pair. */
void batch_watch(struct ibv_qp_ex *qp, uint64_t operations);
/* The number of requests since this thread's ibv_wr_start for this queue pair; 0: none, or unknown. */
uint32_t batch_size(const struct ibv_qp_ex *qp);

#endif
