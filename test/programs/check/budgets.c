/*
 * Makes objects until the device refuses one, or there are COUNT:
 *
 *   budgets DEVICE OBJECT COUNT [cope [ENTRIES]]
 *
 * OBJECT is qp, ud (a queue pair too), cq (of ENTRIES entries), mr, mw, pd, ah, srq; `rtr` moves queue pairs to RTR
 * with 8 responder resources each. Prints how many there are, and the name of the error or "all". Without `cope` the
 * program gives up then, and leaves what it has, with exit status 1. With `cope` it goes on with what it has: it
 * destroys all, and makes one again.
 *
 *   budgets DEVICE open|socket|connect|bind|send|channel use|cope
 *
 * uses up its descriptors, and makes one more: it goes on with -1, or closes one and tries again.
 */
#define _GNU_SOURCE
#include "correct.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>

#define MAX_OBJECTS 64
#define MR_BYTES 16384
#define RESPONSES 8
#define MAX_DESCRIPTORS 64

static struct ibv_cq *cq;
static void *objects[MAX_OBJECTS];
static int made;
static int entries = 1;

static struct ibv_qp *make_qp(enum ibv_qp_type type)
{
    struct ibv_qp_init_attr init = {.send_cq = cq,
                                    .recv_cq = cq,
                                    .qp_type = type,
                                    .cap = {.max_send_wr = 1, .max_recv_wr = 1, .max_send_sge = 1, .max_recv_sge = 1}};
    return ibv_create_qp(pd, &init);
}

static struct ibv_ah_attr own_path(void)
{
    return (struct ibv_ah_attr){.is_global = 1, .port_num = 1, .grh = {.dgid = gid, .sgid_index = gid_index, .hop_limit = 1}};
}

static int to_rtr(struct ibv_qp *qp)
{
    struct ibv_qp_attr init = {.qp_state = IBV_QPS_INIT, .port_num = 1};
    check(ibv_modify_qp(qp, &init, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS), "INIT");
    struct ibv_qp_attr rtr = {.qp_state = IBV_QPS_RTR,
                              .path_mtu = IBV_MTU_1024,
                              .dest_qp_num = qp->qp_num,
                              .max_dest_rd_atomic = RESPONSES,
                              .min_rnr_timer = 12,
                              .ah_attr = own_path()};
    return ibv_modify_qp(qp, &rtr,
                         IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
                             IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER);
}

/* NULL, with errno, if it was refused. */
static void *make(const char *object)
{
    if (!strcmp(object, "cq"))
        return ibv_create_cq(context, entries, NULL, NULL, 0);
    if (!strcmp(object, "mr"))
        return ibv_reg_mr(pd, memory, MR_BYTES, IBV_ACCESS_LOCAL_WRITE);
    if (!strcmp(object, "mw"))
        return ibv_alloc_mw(pd, IBV_MW_TYPE_1);
    if (!strcmp(object, "pd"))
        return ibv_alloc_pd(context);
    if (!strcmp(object, "ah")) {
        struct ibv_ah_attr path = own_path();
        return ibv_create_ah(pd, &path);
    }
    if (!strcmp(object, "srq")) {
        struct ibv_srq_init_attr init = {.attr = {.max_wr = 1, .max_sge = 1}};
        return ibv_create_srq(pd, &init);
    }
    struct ibv_qp *qp = make_qp(has_srd || !strcmp(object, "ud") ? IBV_QPT_UD : IBV_QPT_RC);
    const int error = qp && !strcmp(object, "rtr") ? to_rtr(qp) : 0;
    if (error == 0)
        return qp;
    ibv_destroy_qp(qp);
    errno = error;
    return NULL;
}

static void destroy(const char *object, void *made_object)
{
    if (!strcmp(object, "cq"))
        check(ibv_destroy_cq(made_object), "ibv_destroy_cq");
    else if (!strcmp(object, "mr"))
        check(ibv_dereg_mr(made_object), "ibv_dereg_mr");
    else if (!strcmp(object, "mw"))
        check(ibv_dealloc_mw(made_object), "ibv_dealloc_mw");
    else if (!strcmp(object, "pd"))
        check(ibv_dealloc_pd(made_object), "ibv_dealloc_pd");
    else if (!strcmp(object, "ah"))
        check(ibv_destroy_ah(made_object), "ibv_destroy_ah");
    else if (!strcmp(object, "srq"))
        check(ibv_destroy_srq(made_object), "ibv_destroy_srq");
    else
        check(ibv_destroy_qp(made_object), "ibv_destroy_qp");
}

/* ---- descriptors ---- */

static int make_descriptor(const char *what)
{
    if (!strcmp(what, "open"))
        return open("/etc/passwd", O_RDONLY);
    if (strcmp(what, "channel"))
        return socket(AF_INET, SOCK_STREAM, 0);
    struct ibv_comp_channel *channel = ibv_create_comp_channel(context);
    return channel ? channel->fd : -1;
}

static int descriptors(const char *what, bool copes)
{
    const struct rlimit limit = {.rlim_cur = MAX_DESCRIPTORS, .rlim_max = MAX_DESCRIPTORS};
    check(setrlimit(RLIMIT_NOFILE, &limit), "setrlimit");
    int last = -1;
    for (int fd; (fd = dup(0)) >= 0;)
        last = fd;
    int made = make_descriptor(what);
    if (copes) {
        close(last);
        made = make_descriptor(what);
    }
    char byte = 0;
    const struct sockaddr_in nowhere = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct pollfd polled = {.fd = made, .events = POLLIN};
    if (!strcmp(what, "open") && read(made, &byte, 1) < 0)
        printf("read: %s\n", strerrorname_np(errno));
    else if (!strcmp(what, "socket") && write(made, &byte, 1) < 0)
        printf("write: %s\n", strerrorname_np(errno));
    else if (!strcmp(what, "connect") && connect(made, (struct sockaddr *)&nowhere, sizeof nowhere) < 0)
        printf("connect: %s\n", strerrorname_np(errno));
    else if (!strcmp(what, "bind") && bind(made, (struct sockaddr *)&nowhere, sizeof nowhere) < 0)
        printf("bind: %s\n", strerrorname_np(errno));
    else if (!strcmp(what, "send") && send(made, &byte, 1, MSG_NOSIGNAL) < 0)
        printf("send: %s\n", strerrorname_np(errno));
    else if (!strcmp(what, "channel"))
        printf("poll: %d\n", poll(&polled, 1, 1));
    return copes ? 0 : 1;
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: budgets DEVICE OBJECT COUNT [cope [ENTRIES]]\n");
        return 1;
    }
    const char *object = argv[2];
    if (argc > 5)
        entries = atoi(argv[5]);
    struct ibv_device **devices = ibv_get_device_list(NULL), **found = devices;
    while (*found && strcmp(ibv_get_device_name(*found), argv[1]))
        found++;
    context = need(ibv_open_device(*found), "ibv_open_device");
    ibv_free_device_list(devices);
    has_srd = strstr(argv[1], "efa") != NULL;
    gid_index = has_srd ? 0 : 1;
    check(ibv_query_gid(context, 1, gid_index, &gid), "ibv_query_gid");
    if (!strcmp(argv[3], "use") || !strcmp(argv[3], "cope"))
        return descriptors(object, *argv[3] == 'c');
    pd = need(ibv_alloc_pd(context), "ibv_alloc_pd");
    cq = need(ibv_create_cq(context, 1, NULL, NULL, 0), "ibv_create_cq");
    while (made < atoi(argv[3]) && (objects[made] = make(object)))
        made++;
    printf("%d %s\n", made, made == atoi(argv[3]) ? "all" : strerrorname_np(errno));
    if (argc == 4 && made < atoi(argv[3]))
        return 1;
    while (made > 0)
        destroy(object, objects[--made]);
    destroy(object, need(make(object), "again"));
    check(ibv_destroy_cq(cq), "ibv_destroy_cq");
    check(ibv_dealloc_pd(pd), "ibv_dealloc_pd");
    check(ibv_close_device(context), "ibv_close_device");
    return 0;
}
