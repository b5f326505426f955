/*
 * Destroys a queue pair and its completion queue while an event of one of them is unacknowledged: libibverbs waits for
 * the acknowledgement. Then the program prints "destroyed".
 *
 *   unacknowledged cq|qp           whose event; a line on standard input makes another thread acknowledge it
 *   unacknowledged cq|qp at-once   acknowledges before the destruction, as a correct program does; then waits for the
 *                                  end of standard input
 *   unacknowledged layout          prints the offsets at which the daemon reads libibverbs' structures (`layouts` of
 *                                  src/daemon/check/waits/destroys.ts)
 */
#include "../endpoint.h"
#include <pthread.h>
#include <stddef.h>

#define USAGE "usage: unacknowledged cq|qp [at-once] | layout"

static struct ibv_context *context;
static struct ibv_cq *cq;

/* `event`: NULL for an event of the completion queue. */
static void acknowledge(struct ibv_async_event *event)
{
    if (event)
        ibv_ack_async_event(event);
    else
        ibv_ack_cq_events(cq, 1);
}

static void *acknowledge_on_line(void *event)
{
    NEED(getchar() != EOF, "no line says when to acknowledge");
    acknowledge(event);
    return NULL;
}

int main(int argc, char **argv)
{
    NEED(argc > 1, USAGE);
    if (strcmp(argv[1], "layout") == 0) {
        /* The handle; the number, if any, else the handle; the number of acknowledged events. */
        printf("cq %zu %zu %zu\n", offsetof(struct ibv_cq, handle), offsetof(struct ibv_cq, handle),
               offsetof(struct ibv_cq, comp_events_completed));
        printf("qp %zu %zu %zu\n", offsetof(struct ibv_qp, handle), offsetof(struct ibv_qp, qp_num),
               offsetof(struct ibv_qp, events_completed));
        printf("srq %zu %zu %zu\n", offsetof(struct ibv_srq, handle), offsetof(struct ibv_srq, handle),
               offsetof(struct ibv_srq, events_completed));
        printf("wq %zu %zu %zu\n", offsetof(struct ibv_wq, handle), offsetof(struct ibv_wq, wq_num),
               offsetof(struct ibv_wq, events_completed));
        return 0;
    }
    const bool is_cq = strcmp(argv[1], "cq") == 0, is_at_once = argc > 2 && strcmp(argv[2], "at-once") == 0;
    NEED((is_cq || strcmp(argv[1], "qp") == 0) && (argc == 2 || is_at_once), USAGE);
    int count;
    struct ibv_device **devices = ibv_get_device_list(&count);
    NEED(count > 0, "no device");
    context = ibv_open_device(devices[0]);
    NEED(context, "ibv_open_device: %s", strerror(errno));
    struct ibv_pd *pd = ibv_alloc_pd(context);
    struct ibv_comp_channel *channel = ibv_create_comp_channel(context);
    cq = ibv_create_cq(context, 16, NULL, channel, 0);
    struct ibv_srq_init_attr srq_init = {.attr = {.max_wr = 4, .max_sge = 1}};
    struct ibv_srq *srq = ibv_create_srq(pd, &srq_init);
    struct ibv_qp_init_attr init = {.send_cq = cq, .recv_cq = cq, .qp_type = IBV_QPT_RC, .cap = {1, 1, 1, 1, 0}};
    /* With an SRQ, the move to ERR below causes the event LAST_WQE_REACHED; without, it flushes a receive to the CQ. */
    init.srq = is_cq ? NULL : srq;
    struct ibv_qp *qp = ibv_create_qp(pd, &init);
    NEED(cq && srq && qp, "a CQ, an SRQ or a QP could not be created: %s", strerror(errno));
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT, .port_num = 1};
    NEED(ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS) == 0, "INIT");
    struct ibv_async_event event;
    if (is_cq) {
        struct ibv_recv_wr wr = {.wr_id = 1}, *bad;
        NEED(ibv_post_recv(qp, &wr, &bad) == 0 && ibv_req_notify_cq(cq, 0) == 0, "no receive");
    }
    attr.qp_state = IBV_QPS_ERR;
    NEED(ibv_modify_qp(qp, &attr, IBV_QP_STATE) == 0, "ERR");
    if (is_cq) {
        struct ibv_cq *event_cq;
        void *cq_context;
        NEED(ibv_get_cq_event(channel, &event_cq, &cq_context) == 0, "ibv_get_cq_event: %s", strerror(errno));
    } else
        NEED(ibv_get_async_event(context, &event) == 0, "ibv_get_async_event: %s", strerror(errno));
    struct ibv_async_event *const unacknowledged_event = is_cq ? NULL : &event;
    pthread_t thread;
    if (is_at_once)
        acknowledge(unacknowledged_event);
    else
        NEED(pthread_create(&thread, NULL, acknowledge_on_line, unacknowledged_event) == 0, "pthread_create");
    NEED(ibv_destroy_qp(qp) == 0 && ibv_destroy_cq(cq) == 0, "destroy");
    puts("destroyed");
    fflush(stdout);
    while (is_at_once && getchar() != EOF)
        ;
    return 0;
}
