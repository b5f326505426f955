/*
 * What a program may do on its device that needs CAP_NET_RAW: sets a privileged Q_Key, before and after it moves to a
 * user namespace of its own, in which it has all capabilities. Prints "allowed" or the error for each.
 */
#define _GNU_SOURCE
#include <sched.h>

#include "../endpoint.h"

static void set_privileged_qkey(struct ibv_qp *qp)
{
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT, .port_num = 1, .qkey = 0x80010000};
    const int error = ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_QKEY);
    printf("%s\n", error ? strerror(error) : "allowed");
}

int main(int count, char **arguments)
{
    NEED(count == 1, "%s: usage: own_namespace", arguments[1]);
    struct ibv_context *context = open_named(NULL);
    struct ibv_pd *pd = ibv_alloc_pd(context);
    struct ibv_cq *cq = ibv_create_cq(context, 4, NULL, NULL, 0);
    NEED(pd && cq, "ibv_alloc_pd, ibv_create_cq: %s", strerror(errno));
    struct ibv_qp_init_attr init = {
        .send_cq = cq, .recv_cq = cq, .qp_type = IBV_QPT_UD, .cap = {4, 4, 1, 1, 0}};
    struct ibv_qp *qp = ibv_create_qp(pd, &init);
    NEED(qp, "ibv_create_qp: %s", strerror(errno));
    set_privileged_qkey(qp);
    NEED(unshare(CLONE_NEWUSER) == 0, "cannot: unshare(CLONE_NEWUSER): %s", strerror(errno));
    set_privileged_qkey(qp);
    return 0;
}
