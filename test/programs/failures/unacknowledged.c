/*
 * Destroys a queue pair and its completion queue, and has read an event of one of them without acknowledging it:
 * libibverbs waits for the acknowledgement.
 *
 *   unacknowledged cq|qp           the event is of the completion queue or of the queue pair; a line on standard input
 *                                  makes another thread acknowledge it
 *   unacknowledged cq|qp at-once   acknowledges it before the destruction, as a correct program does
 *   unacknowledged layout          prints the offsets in libibverbs' structures that the daemon reads
 */
#include "../endpoint.h"
#include <pthread.h>
#include <stddef.h>

static struct ibv_context *context;
static struct ibv_cq *cq;

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
    NEED(argc > 1, "usage: unacknowledged cq|qp|layout [at-once]");
    if (strcmp(argv[1], "layout") == 0) {
        printf("cq %zu %zu %zu\n", offsetof(struct ibv_cq, handle), offsetof(struct ibv_cq, handle),
               offsetof(struct ibv_cq, comp_events_completed));
        printf("qp %zu %zu %zu\n", offsetof(struct ibv_qp, handle), offsetof(struct ibv_qp, qp_num),
               offsetof(struct ibv_qp, events_completed));
        printf("srq %zu %zu %zu\n", offsetof(struct ibv_srq, handle), offsetof(struct ibv_srq, handle),
               offsetof(struct ibv_srq, events_completed));
        return 0;
    }
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
    const bool is_cq = strcmp(argv[1], "cq") == 0;
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
        struct ibv_cq *from;
        void *cq_context;
        NEED(ibv_get_cq_event(channel, &from, &cq_context) == 0, "ibv_get_cq_event: %s", strerror(errno));
    } else
        NEED(ibv_get_async_event(context, &event) == 0, "ibv_get_async_event: %s", strerror(errno));
    struct ibv_async_event *const read = is_cq ? NULL : &event;
    pthread_t other;
    if (argc > 2)
        acknowledge(read);
    else
        NEED(pthread_create(&other, NULL, acknowledge_on_line, read) == 0, "pthread_create");
    NEED(ibv_destroy_qp(qp) == 0 && ibv_destroy_cq(cq) == 0, "destroy");
    puts("destroyed");
    return 0;
}
