/*
 * Ends a queue pair with one send: lost_sends TYPE WAY FATE. TYPE: rc, uc, srq or xrc; srq and xrc are types of the
 * peer's receive queue. WAY: how the queue pair ends. FATE: `lost`, no receive is posted for the send; `unpolled`, it
 * is complete and not polled; `polled`. The process is named TYPE-WAY-FATE, abbreviated.
 */
#define _GNU_SOURCE
#include "../../../docs/findings/pair.h"

#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/prctl.h>

static const char *type;
static struct ibv_srq *srq;
static struct ibv_xrcd *xrcd;

static bool is(const char *word, const char *name)
{
    return strcmp(word, name) == 0;
}

static void make_receiver(struct end *end)
{
    struct ibv_qp_init_attr init = small_qp();
    init.qp_type = is(type, "uc") ? IBV_QPT_UC : IBV_QPT_RC;
    if (is(type, "srq")) {
        make_end(end);
        check(ibv_destroy_qp(end->qp), "ibv_destroy_qp");
        struct ibv_srq_init_attr attr = {.attr = {.max_wr = 8, .max_sge = 1}};
        init.srq = srq = need(ibv_create_srq(end->pd, &attr), "ibv_create_srq");
        init.send_cq = init.recv_cq = end->cq;
        end->qp = need(ibv_create_qp(end->pd, &init), "ibv_create_qp");
        to_init(end);
    } else if (is(type, "xrc")) {
        make_end(end);
        check(ibv_destroy_qp(end->qp), "ibv_destroy_qp");
        struct ibv_xrcd_init_attr domain = {
            .comp_mask = IBV_XRCD_INIT_ATTR_FD | IBV_XRCD_INIT_ATTR_OFLAGS, .fd = -1, .oflags = O_CREAT};
        xrcd = need(ibv_open_xrcd(context, &domain), "ibv_open_xrcd");
        struct ibv_srq_init_attr_ex attr = {
            .attr = {.max_wr = 8, .max_sge = 1},
            .comp_mask = IBV_SRQ_INIT_ATTR_TYPE | IBV_SRQ_INIT_ATTR_XRCD | IBV_SRQ_INIT_ATTR_CQ | IBV_SRQ_INIT_ATTR_PD,
            .srq_type = IBV_SRQT_XRC, .xrcd = xrcd, .cq = end->cq, .pd = end->pd};
        srq = need(ibv_create_srq_ex(context, &attr), "ibv_create_srq_ex");
        struct ibv_qp_init_attr_ex target = {
            .qp_type = IBV_QPT_XRC_RECV, .comp_mask = IBV_QP_INIT_ATTR_XRCD, .xrcd = xrcd};
        end->qp = need(ibv_create_qp_ex(context, &target), "ibv_create_qp_ex");
        to_init(end);
    } else
        make_end_with(end, init, 16);
}

static void make_sender(struct end *end)
{
    struct ibv_qp_init_attr init = small_qp();
    init.qp_type = is(type, "uc") ? IBV_QPT_UC : is(type, "xrc") ? IBV_QPT_XRC_SEND : IBV_QPT_RC;
    if (is(type, "xrc"))
        init.cap.max_recv_wr = init.cap.max_recv_sge = 0;
    make_end_with(end, init, 16);
    end->attr.rnr_retry = 7;
}

static void receive(struct end *end)
{
    struct ibv_sge sge = all_of(end);
    struct ibv_recv_wr *bad, wr = {.wr_id = 2, .sg_list = &sge, .num_sge = 1};
    if (srq)
        check(ibv_post_srq_recv(srq, &wr, &bad), "ibv_post_srq_recv");
    else
        post_receive(end, sge);
}

static void send_one(struct end *end)
{
    struct ibv_sge sge = all_of(end);
    struct ibv_send_wr *bad, wr = {.wr_id = 1, .sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_SEND};
    if (is(type, "xrc"))
        check(ibv_get_srq_num(srq, &wr.qp_type.xrc.remote_srqn), "ibv_get_srq_num");
    check(ibv_post_send(end->qp, &wr, &bad), "ibv_post_send");
}

static void end_queue_pair(struct end *end, const char *way)
{
    struct ibv_qp_attr attr = {.qp_state = is(way, "reset") ? IBV_QPS_RESET : IBV_QPS_ERR};
    if (is(way, "destroy"))
        check(ibv_destroy_qp(end->qp), "ibv_destroy_qp");
    else if (is(way, "reset") || is(way, "err"))
        check(ibv_modify_qp(end->qp, &attr, IBV_QP_STATE), "ibv_modify_qp");
    else if (is(way, "close"))
        check(ibv_close_device(context), "ibv_close_device");
    else if (is(way, "exit"))
        exit(0);
    else if (is(way, "exec"))
        execlp("true", "true", NULL);
    else if (is(way, "kill"))
        raise(SIGKILL);
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: %s TYPE WAY FATE\n", argv[0]);
        return 1;
    }
    char name[16];
    type = argv[1];
    snprintf(name, sizeof name, "%s-%.7s-%.3s", type, argv[2], argv[3]);
    prctl(PR_SET_NAME, name);
    struct end one = {0}, other = {0};
    open_device();
    make_sender(&one);
    make_receiver(&other);
    to_rtr(&one, &other);
    to_rtr(&other, &one);
    to_rts(&one);
    if (!is(argv[3], "lost"))
        receive(&other);
    send_one(&one);
    if (is(argv[3], "polled"))
        completion(&one);
    end_queue_pair(&one, argv[2]);
    _exit(0);
}
