/*
 * Sends one message to a queue pair that need not exist, for the fields of its packet: one_send rc|ud GID_INDEX DGID
 * HOP_LIMIT TRAFFIC_CLASS FLOW_LABEL QPN. A connected queue pair sends once more until it fails. Prints the number of
 * its own queue pair, or the call that has failed with its errno.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <infiniband/verbs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SIZE = 64, GRH = 40, QKEY = 0x11111111, PSN = 7 };

static void *need(void *object, const char *call)
{
    if (!object) {
        printf("%s %s\n", call, strerror(errno));
        exit(0);
    }
    return object;
}

static void check(int error, const char *call)
{
    if (error) {
        printf("%s %s\n", call, strerror(error < 0 ? errno : error));
        exit(0);
    }
}

int main(int count, char **arguments)
{
    struct in6_addr address;
    if (count != 8 || inet_pton(AF_INET6, arguments[3], &address) != 1) {
        fprintf(stderr, "usage: %s rc|ud GID_INDEX DGID HOP_LIMIT TRAFFIC_CLASS FLOW_LABEL QPN\n", arguments[0]);
        return 1;
    }
    const int is_datagram = strcmp(arguments[1], "ud") == 0;
    struct ibv_device **const list = need(ibv_get_device_list(NULL), "ibv_get_device_list");
    struct ibv_context *const context = need(ibv_open_device(need(list[0], "a device")), "ibv_open_device");
    struct ibv_pd *const pd = need(ibv_alloc_pd(context), "ibv_alloc_pd");
    struct ibv_cq *const cq = need(ibv_create_cq(context, 4, NULL, NULL, 0), "ibv_create_cq");
    static char buffer[SIZE + GRH];
    struct ibv_mr *const mr = need(ibv_reg_mr(pd, buffer, sizeof buffer, IBV_ACCESS_LOCAL_WRITE), "ibv_reg_mr");
    struct ibv_qp_init_attr init = {
        .qp_type = is_datagram ? IBV_QPT_UD : IBV_QPT_RC,
        .send_cq = cq,
        .recv_cq = cq,
        .cap = {.max_send_wr = 1, .max_recv_wr = 1, .max_send_sge = 1, .max_recv_sge = 1},
    };
    struct ibv_qp *const qp = need(ibv_create_qp(pd, &init), "ibv_create_qp");
    struct ibv_qp_attr attr = {
        .qp_state = IBV_QPS_INIT,
        .port_num = 1,
        .qkey = QKEY,
        .path_mtu = IBV_MTU_1024,
        .dest_qp_num = (uint32_t)strtoul(arguments[7], NULL, 0),
        .rq_psn = PSN,
        .sq_psn = PSN,
        .timeout = 12,
        .ah_attr = {.is_global = 1, .port_num = 1},
    };
    memcpy(attr.ah_attr.grh.dgid.raw, &address, sizeof address);
    attr.ah_attr.grh.sgid_index = (uint8_t)atoi(arguments[2]);
    attr.ah_attr.grh.hop_limit = (uint8_t)atoi(arguments[4]);
    attr.ah_attr.grh.traffic_class = (uint8_t)atoi(arguments[5]);
    attr.ah_attr.grh.flow_label = (uint32_t)atoi(arguments[6]);
    const int own = is_datagram ? IBV_QP_QKEY : IBV_QP_ACCESS_FLAGS;
    check(ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | own), "INIT");
    attr.qp_state = IBV_QPS_RTR;
    const int path = IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC |
                     IBV_QP_MIN_RNR_TIMER;
    check(ibv_modify_qp(qp, &attr, IBV_QP_STATE | (is_datagram ? 0 : path)), "RTR");
    attr.qp_state = IBV_QPS_RTS;
    const int timers = IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_MAX_QP_RD_ATOMIC;
    check(ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_SQ_PSN | (is_datagram ? 0 : timers)), "RTS");
    struct ibv_sge sge = {.addr = (uintptr_t)buffer, .length = SIZE, .lkey = mr->lkey};
    struct ibv_send_wr *bad, wr = {.sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_SEND, .send_flags = IBV_SEND_SIGNALED};
    if (is_datagram) {
        wr.wr.ud.ah = need(ibv_create_ah(pd, &attr.ah_attr), "ibv_create_ah");
        wr.wr.ud.remote_qpn = attr.dest_qp_num;
        wr.wr.ud.remote_qkey = QKEY;
    }
    check(ibv_post_send(qp, &wr, &bad), "ibv_post_send");
    struct ibv_wc wc;
    while (ibv_poll_cq(cq, 1, &wc) == 0)
        ;
    printf("%u\n", qp->qp_num);
    return 0;
}
