/* The program has created its queue pair itself, and takes CONNECT_RESPONSE for the end of the connection's start. */
#include "cm.h"

/* Moves the identifier's own queue pair to a state. */
static void move(struct rdma_cm_id *id, struct ibv_qp *qp, enum ibv_qp_state state)
{
    struct ibv_qp_attr attr = {.qp_state = state};
    int mask = IBV_QP_STATE;
    if (state != IBV_QPS_ERR)
        check(rdma_init_qp_attr(id, &attr, &mask), "rdma_init_qp_attr");
    check(ibv_modify_qp(qp, &attr, mask), "ibv_modify_qp");
}

int main(void)
{
    static struct cm_end active, passive;
    resolve(&active, &passive);
    rdma_destroy_qp(active.id);
    struct ibv_cq *cq = need(ibv_create_cq(active.id->verbs, 16, NULL, NULL, 0), "ibv_create_cq");
    struct ibv_qp_init_attr init = small_qp();
    init.send_cq = init.recv_cq = cq;
    struct ibv_qp *qp = need(ibv_create_qp(active.pd, &init), "ibv_create_qp");
    move(active.id, qp, IBV_QPS_INIT);
    struct rdma_conn_param parameters = {.qp_num = qp->qp_num, .retry_count = 1};
    check(rdma_connect(active.id, &parameters), "rdma_connect");
    take_request(&passive);
    cm_receive(&passive);
    struct rdma_conn_param accepted = {.rnr_retry_count = 1};
    check(rdma_accept(passive.id, &accepted), "rdma_accept");
    event_of(active.channel, RDMA_CM_EVENT_CONNECT_RESPONSE); /* FAULT */
    move(active.id, qp, IBV_QPS_RTR);
    move(active.id, qp, IBV_QPS_RTS);
#ifdef FIXED
    check(rdma_establish(active.id), "rdma_establish");
    event_of(passive.channel, RDMA_CM_EVENT_ESTABLISHED);
#endif
    move(active.id, qp, IBV_QPS_ERR);
    check(ibv_destroy_qp(qp), "ibv_destroy_qp");
    check(ibv_destroy_cq(cq), "ibv_destroy_cq");
    destroy_cm_pair(&active, &passive);
    return 0;
}
