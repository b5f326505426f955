/*
 * Raw packets on one device: frames with checksums of the device reach the queue pairs that flow rules name, with the
 * tag of the rule; a rule drops others, a sniffer gets copies. A receiver waits for an event.
 *
 *   raw_packets DEVICE
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <net/ethernet.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <poll.h>

#include "../endpoint.h"

#define FRAME 60
#define RECEIVES 16
#define ROUNDS 200
#define WAIT 20000 /* milliseconds */

struct frame {
    struct ether_header ether;
    struct iphdr ip;
    struct udphdr udp;
    uint8_t payload[FRAME - 42];
} __attribute__((packed));

struct rule {
    struct ibv_flow_attr attr;
    struct ibv_flow_spec_eth eth;
    struct ibv_flow_spec_tcp_udp udp;
    union {
        struct ibv_flow_spec_action_tag tag;
        struct ibv_flow_spec_action_drop drop;
    };
};

static struct ibv_context *context;
static struct ibv_pd *pd;
static struct ibv_mr *mr;
static uint8_t *memory;
static uint8_t mac[6];

struct queue {
    struct ibv_comp_channel *channel;
    struct ibv_cq_ex *cq;
    struct ibv_qp *qp;
    uint8_t *buffers; /* RECEIVES frames */
};

static void post_receive(struct queue *queue, uint64_t id)
{
    struct ibv_sge sge = {(uintptr_t)queue->buffers + id * FRAME, FRAME, mr->lkey};
    struct ibv_recv_wr wr = {.wr_id = id, .sg_list = &sge, .num_sge = 1}, *bad;
    NEED(ibv_post_recv(queue->qp, &wr, &bad) == 0, "ibv_post_recv: %s", strerror(errno));
}

static void open_queue(struct queue *queue, uint8_t *buffers)
{
    struct ibv_cq_init_attr_ex cq = {.cqe = 256,
                                     .wc_flags = IBV_WC_EX_WITH_BYTE_LEN | IBV_WC_EX_WITH_FLOW_TAG};
    queue->buffers = buffers;
    NEED(queue->channel = ibv_create_comp_channel(context), "ibv_create_comp_channel: %s", strerror(errno));
    cq.channel = queue->channel;
    NEED(queue->cq = ibv_create_cq_ex(context, &cq), "ibv_create_cq_ex: %s", strerror(errno));
    struct ibv_qp_init_attr init = {.send_cq = ibv_cq_ex_to_cq(queue->cq),
                                    .recv_cq = ibv_cq_ex_to_cq(queue->cq),
                                    .cap = {.max_send_wr = 16, .max_recv_wr = RECEIVES, .max_send_sge = 2,
                                            .max_recv_sge = 1, .max_inline_data = FRAME},
                                    .qp_type = IBV_QPT_RAW_PACKET};
    NEED(queue->qp = ibv_create_qp(pd, &init), "ibv_create_qp: %s", strerror(errno));
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT, .port_num = 1};
    NEED(ibv_modify_qp(queue->qp, &attr, IBV_QP_STATE | IBV_QP_PORT) == 0, "INIT: %s", strerror(errno));
    for (int i = 0; i < RECEIVES; i++)
        post_receive(queue, i);
    for (int state = IBV_QPS_RTR; state <= IBV_QPS_RTS; state++) {
        attr.qp_state = state;
        NEED(ibv_modify_qp(queue->qp, &attr, IBV_QP_STATE) == 0, "state %d: %s", state, strerror(errno));
    }
}

static struct ibv_flow *add_rule(struct queue *queue, uint16_t port, uint32_t tag, int priority)
{
    struct rule rule = {
        .attr = {.type = IBV_FLOW_ATTR_NORMAL, .size = sizeof rule, .num_of_specs = 3, .port = 1, .priority = priority},
        .eth = {.type = IBV_FLOW_SPEC_ETH, .size = sizeof rule.eth},
        .udp = {.type = IBV_FLOW_SPEC_UDP, .size = sizeof rule.udp, .val.dst_port = htons(port), .mask.dst_port = 0xffff},
    };
    memcpy(rule.eth.val.dst_mac, mac, 6);
    memset(rule.eth.mask.dst_mac, 0xff, 6);
    if (tag != 0)
        rule.tag = (struct ibv_flow_spec_action_tag){IBV_FLOW_SPEC_ACTION_TAG, sizeof rule.tag, tag};
    else {
        rule.drop = (struct ibv_flow_spec_action_drop){IBV_FLOW_SPEC_ACTION_DROP, sizeof rule.drop};
        rule.attr.size -= sizeof rule.tag - sizeof rule.drop;
    }
    struct ibv_flow *flow = ibv_create_flow(queue->qp, &rule.attr);
    NEED(flow != NULL, "ibv_create_flow for port %d: %s", port, strerror(errno));
    return flow;
}

/* Without checksums: the device computes them. */
static void send_frame(struct queue *queue, uint16_t port, uint8_t number, bool isInline)
{
    struct frame frame = {
        .ether.ether_type = htons(ETHERTYPE_IP),
        .ip = {.version = 4, .ihl = 5, .tot_len = htons(FRAME - 14), .ttl = 64, .protocol = IPPROTO_UDP,
               .saddr = htonl(0x0a000001), .daddr = htonl(0x0a000002)},
        .udp = {.source = htons(9), .dest = htons(port), .len = htons(FRAME - 34)},
    };
    memcpy(frame.ether.ether_dhost, mac, 6);
    memcpy(frame.ether.ether_shost, mac, 6);
    memset(frame.payload, number, sizeof frame.payload);
    memcpy(memory, &frame, FRAME);
    /* in two elements: the Ethernet header is in both */
    struct ibv_sge sges[] = {{(uintptr_t)memory, 10, mr->lkey}, {(uintptr_t)memory + 10, FRAME - 10, mr->lkey}};
    struct ibv_send_wr wr = {.sg_list = sges, .num_sge = 2, .opcode = IBV_WR_SEND}, *bad;
    wr.send_flags = IBV_SEND_SIGNALED | IBV_SEND_IP_CSUM | (isInline ? IBV_SEND_INLINE : 0);
    NEED(ibv_post_send(queue->qp, &wr, &bad) == 0, "ibv_post_send: %s", strerror(errno));
    struct ibv_poll_cq_attr attr = {0};
    while (ibv_start_poll(queue->cq, &attr) != 0)
        ;
    NEED(queue->cq->status == IBV_WC_SUCCESS, "a send: %s", ibv_wc_status_str(queue->cq->status));
    ibv_end_poll(queue->cq);
}

/* Waits for an event if there is no completion. */
static void expect(struct queue *queue, uint32_t tag, uint8_t number)
{
    struct ibv_poll_cq_attr attr = {0};
    struct ibv_cq *cq = ibv_cq_ex_to_cq(queue->cq);
    int error;
    NEED(ibv_req_notify_cq(cq, 0) == 0, "ibv_req_notify_cq: %s", strerror(errno));
    while ((error = ibv_start_poll(queue->cq, &attr)) == ENOENT) {
        struct pollfd fd = {queue->channel->fd, POLLIN, 0};
        void *user;
        NEED(poll(&fd, 1, WAIT) == 1, "frame %d with tag %x has not arrived", number, tag);
        NEED(ibv_get_cq_event(queue->channel, &cq, &user) == 0, "ibv_get_cq_event: %s", strerror(errno));
        ibv_ack_cq_events(cq, 1);
    }
    NEED(error == 0 && queue->cq->status == IBV_WC_SUCCESS, "a receive: %d, %s", error,
         ibv_wc_status_str(queue->cq->status));
    const uint64_t id = queue->cq->wr_id;
    const struct frame *frame = (const struct frame *)(queue->buffers + id * FRAME);
    const unsigned flags = ibv_wc_read_wc_flags(queue->cq);
    NEED(ibv_wc_read_byte_len(queue->cq) == FRAME, "%u bytes", ibv_wc_read_byte_len(queue->cq));
    NEED(ibv_wc_read_flow_tag(queue->cq) == tag, "tag %x, not %x", ibv_wc_read_flow_tag(queue->cq), tag);
    NEED((flags & IBV_WC_IP_CSUM_OK) != 0, "flags %x: the checksums are wrong", flags);
    NEED(frame->ip.check != 0 && frame->udp.check != 0, "no checksums");
    NEED(frame->payload[0] == number && frame->payload[sizeof frame->payload - 1] == number, "frame %d is %d", number,
         frame->payload[0]);
    ibv_end_poll(queue->cq);
    post_receive(queue, id);
}

static void expect_none(struct queue *queue)
{
    struct ibv_poll_cq_attr attr = {0};
    NEED(ibv_start_poll(queue->cq, &attr) == ENOENT, "a frame that no rule gives to this queue pair");
}

int main(int argc, char **argv)
{
    NEED(argc == 2, "usage: raw_packets DEVICE");
    context = open_named(argv[1]);
    NEED(pd = ibv_alloc_pd(context), "ibv_alloc_pd: %s", strerror(errno));
    const size_t bytes = FRAME * (1 + 3 * RECEIVES);
    NEED(memory = malloc(bytes), "malloc");
    NEED(mr = ibv_reg_mr(pd, memory, bytes, IBV_ACCESS_LOCAL_WRITE), "ibv_reg_mr: %s", strerror(errno));
    union ibv_gid gid;
    NEED(ibv_query_gid(context, 1, 0, &gid) == 0, "ibv_query_gid: %s", strerror(errno));
    const uint8_t of_gid[] = {gid.raw[8] ^ 2, gid.raw[9], gid.raw[10], gid.raw[13], gid.raw[14], gid.raw[15]};
    memcpy(mac, of_gid, 6);
    struct queue sender, one, other;
    open_queue(&sender, memory + FRAME);
    struct ibv_device_attr device;
    NEED(ibv_query_device(context, &device) == 0, "ibv_query_device");
    NEED((device.device_cap_flags & IBV_DEVICE_RAW_IP_CSUM) != 0, "the device computes no checksums");
    open_queue(&one, memory + FRAME * (1 + RECEIVES));
    open_queue(&other, memory + FRAME * (1 + 2 * RECEIVES));
    struct ibv_flow *first = add_rule(&one, 7001, 0x1234, 1), *second = add_rule(&other, 7002, 0xfedcba, 1);
    for (int i = 0; i < ROUNDS; i++) {
        send_frame(&sender, 7001 + i % 2, i, i % 3 == 0);
        expect(i % 2 == 0 ? &one : &other, i % 2 == 0 ? 0x1234 : 0xfedcba, i);
    }
    struct ibv_flow *dropping = add_rule(&one, 7001, 0, 0);
    send_frame(&sender, 7001, 1, false);
    send_frame(&sender, 7002, 2, false);
    expect(&other, 0xfedcba, 2);
    expect_none(&one);
    NEED(ibv_destroy_qp(one.qp) == EBUSY, "a queue pair with a rule was destroyed");
    NEED(ibv_destroy_flow(dropping) == 0 && ibv_destroy_flow(second) == 0, "ibv_destroy_flow: %s", strerror(errno));
    send_frame(&sender, 7002, 3, false);
    send_frame(&sender, 7001, 4, false);
    expect(&one, 0x1234, 4);
    expect_none(&other);
    NEED(ibv_destroy_flow(first) == 0 && ibv_destroy_qp(one.qp) == 0, "destroy: %s", strerror(errno));
    puts("good");
    return 0;
}
