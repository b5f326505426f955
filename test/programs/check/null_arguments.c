/*
 * Calls of libibverbs and librdmacm with NULL for an argument that must not be NULL, one after the other, under
 * `userdma check`, which refuses them. Prints a line for each: the function and the argument's position.
 */
#include "../../../docs/findings/cm.h"

#include <rdma/rdma_verbs.h>

static int status;

#define CALL(position, is_refused, call, ...)                                                                          \
    do {                                                                                                               \
        printf("%s %d\n", #call[0] == '(' ? #call + 1 : #call, position);                                              \
        fflush(stdout);                                                                                                \
        errno = 0;                                                                                                     \
        if (!(call(__VA_ARGS__) is_refused)) {                                                                         \
            fprintf(stderr, "null_arguments: line %d is not refused\n", __LINE__);                                     \
            status = 1;                                                                                                \
        }                                                                                                              \
    } while (0)
#define FAILED != 0
#define IS_NULL == NULL

int main(int count, char **arguments)
{
    if (count > 1)
        return fprintf(stderr, "usage: %s, without %s\n", arguments[0], arguments[1]), 1;
    struct end one = {0};
    struct ibv_qp_attr attributes = {0};
    struct ibv_cq *cq;
    open_device();
    make_end(&one);
    struct ibv_comp_channel *channel = need(ibv_create_comp_channel(context), "ibv_create_comp_channel");
    struct ibv_cq_init_attr_ex extended = {.cqe = 4};
    struct ibv_cq_ex *polled = need(ibv_create_cq_ex(context, &extended), "ibv_create_cq_ex");
    struct ibv_srq_init_attr shared = {.attr = {.max_wr = 4, .max_sge = 1}};
    struct ibv_srq *srq = need(ibv_create_srq(one.pd, &shared), "ibv_create_srq");
    struct rdma_event_channel *events = need(rdma_create_event_channel(), "rdma_create_event_channel");
    struct rdma_cm_id *id;
    int mask;
    check(rdma_create_id(events, &id, NULL, RDMA_PS_TCP), "rdma_create_id");

    CALL(1, IS_NULL, ibv_open_device, NULL);
    CALL(2, FAILED, ibv_get_async_event, context, NULL);
    CALL(2, FAILED, ibv_query_device, context, NULL);
    CALL(4, FAILED, ibv_query_gid, context, 1, 0, NULL);
    CALL(4, FAILED, ibv_query_pkey, context, 1, 0, NULL);
    CALL(2, IS_NULL, ibv_create_srq, one.pd, NULL);
    CALL(2, FAILED, ibv_modify_srq, srq, NULL, IBV_SRQ_LIMIT);
    CALL(2, FAILED, ibv_query_srq, srq, NULL);
    CALL(2, IS_NULL, ibv_create_qp, one.pd, NULL);
    CALL(2, FAILED, ibv_modify_qp, one.qp, NULL, IBV_QP_STATE);
    CALL(2, FAILED, ibv_query_qp, one.qp, NULL, IBV_QP_STATE, NULL);
    CALL(4, FAILED, ibv_query_qp, one.qp, &attributes, IBV_QP_STATE, NULL);
    CALL(2, FAILED, ibv_get_cq_event, channel, NULL, NULL);
    CALL(3, FAILED, ibv_get_cq_event, channel, &cq, NULL);
    CALL(2, FAILED, ibv_attach_mcast, one.qp, NULL, 0);
    CALL(2, FAILED, ibv_detach_mcast, one.qp, NULL, 0);
    CALL(2, FAILED, ibv_set_ece, one.qp, NULL);
    CALL(2, FAILED, ibv_query_ece, one.qp, NULL);
    CALL(2, IS_NULL, ibv_create_ah, one.pd, NULL);
    CALL(2, IS_NULL, ibv_create_ah_from_wc, one.pd, NULL, NULL, 1);
    CALL(3, FAILED, ibv_poll_cq, one.cq, 1, NULL);
    CALL(2, FAILED, ibv_start_poll, polled, NULL);
    CALL(2, FAILED, rdma_create_id, events, NULL, NULL, RDMA_PS_TCP);
    CALL(1, FAILED, rdma_create_ep, NULL, NULL, NULL, NULL);
    CALL(2, FAILED, rdma_create_ep, &id, NULL, NULL, NULL);
    CALL(3, FAILED, rdma_create_qp, id, one.pd, NULL);
    CALL(2, FAILED, rdma_create_qp_ex, id, NULL);
    CALL(3, FAILED, rdma_create_srq, id, one.pd, NULL);
    CALL(2, FAILED, rdma_create_srq_ex, id, NULL);
    CALL(2, FAILED, rdma_get_request, id, NULL);
    CALL(2, FAILED, rdma_join_multicast_ex, id, NULL, NULL);
    CALL(4, FAILED, rdma_set_option, id, RDMA_OPTION_ID, RDMA_OPTION_ID_TOS, NULL, 1);
    CALL(2, FAILED, rdma_init_qp_attr, id, NULL, &mask);
    CALL(3, FAILED, rdma_init_qp_attr, id, &attributes, NULL);
    CALL(4, FAILED, rdma_getaddrinfo, "localhost", NULL, NULL, NULL);

    check(rdma_destroy_id(id), "rdma_destroy_id");
    rdma_destroy_event_channel(events);
    check(ibv_destroy_srq(srq), "ibv_destroy_srq");
    check(ibv_destroy_cq(ibv_cq_ex_to_cq(polled)), "ibv_destroy_cq");
    check(ibv_destroy_comp_channel(channel), "ibv_destroy_comp_channel");
    destroy_end(&one);
    check(ibv_close_device(context), "ibv_close_device");
    return status;
}
