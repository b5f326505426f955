/*
 * Functions for verbs.c.
 */
#ifndef USERDMA_VERBS_OPS_H
#define USERDMA_VERBS_OPS_H

#include "../recorder/verbs.h"

/* ---- xrc.c ---- */

/* Sets open_xrcd, close_xrcd, get_srq_num and open_qp in a context's table, if its provider has none of its own. */
void xrc_add_operations(struct verbs_context *context);
/* Whether it has set them. */
bool xrc_is_added(const struct ibv_context *context);
/* Like ibv_create_qp_ex, for an XRC target (IBV_QPT_XRC_RECV). */
struct ibv_qp *xrc_create_target(struct ibv_context *context, struct ibv_qp_init_attr_ex *attributes);
/* Like ibv_post_send, for an XRC initiator (IBV_QPT_XRC_SEND): posts with `original`, SRQ numbers in the flags. */
int xrc_post_send(post_send_function *original, struct ibv_qp *qp, struct ibv_send_wr *list, struct ibv_send_wr **bad);

/* ---- faults.c ---- */

/* Whether fault rules may refuse posts: then each post asks. */
bool posts_may_fail(void);
/* Asks the daemon whether a request fails. Returns 0 or the positive errno. */
int fault_of(int fd, struct userdma_posting posting);
/* The bytes of elements, for `posting`. */
uint32_t length_of(const struct ibv_sge *list, int count);

#endif
