/*
 * A service by datagrams that survives every single failure (test/system/failures/walk.test.ts): requests have numbers
 * and are repeated until the answer comes, answers may come twice; a device that has failed is opened again, a server
 * that has ended is started again, and addresses are asked for each time.
 */
#include "recovering.h"

#define REQUESTS 10
#define QKEY 0x1234
#define GRH_BYTES 40
#define ANSWER_TIME 100 /* ms */
#define RECEIVES 8
#define SLOT_BYTES 128

/* Sent out of band: where the server is. */
struct place {
    uint32_t ok, qpn;
    union ibv_gid gid;
};
struct message {
    uint64_t number;
    uint32_t qpn;
};

static struct device device;
static const char *program;
static struct ibv_qp *qp;
static int gid_index;
static union ibv_gid gid;

static void drop(void)
{
    if (qp)
        ibv_destroy_qp(qp);
    qp = NULL;
}

static bool post_receive(uint64_t slot)
{
    struct ibv_sge sge = {(uintptr_t)device.buffer + slot * SLOT_BYTES, SLOT_BYTES, device.mr->lkey};
    struct ibv_recv_wr wr = {.wr_id = slot, .sg_list = &sge, .num_sge = 1}, *bad;
    return ibv_post_recv(qp, &wr, &bad) == 0;
}

static bool create(void)
{
    struct ibv_qp_init_attr init = {
        .send_cq = device.cq,
        .recv_cq = device.cq,
        .cap = {.max_send_wr = 4, .max_recv_wr = RECEIVES, .max_send_sge = 1, .max_recv_sge = 1},
        .qp_type = IBV_QPT_UD};
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT, .port_num = 1, .qkey = QKEY};
    gid_index = find_gid(&device, &gid);
    if (gid_index < 0 || !(qp = ibv_create_qp(device.pd, &init)) ||
        ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_QKEY) != 0)
        return false;
    for (uint64_t slot = 0; slot < RECEIVES; slot++)
        if (!post_receive(slot))
            return false;
    attr.qp_state = IBV_QPS_RTR;
    if (ibv_modify_qp(qp, &attr, IBV_QP_STATE) != 0)
        return false;
    attr.qp_state = IBV_QPS_RTS;
    return ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_SQ_PSN) == 0;
}

/* The device and the queue pair, made anew if something is broken. */
static void prepare(bool broken)
{
    if (broken || (device.context && has_failed(&device))) {
        drop();
        close_device(&device);
    }
    while (!qp) {
        if (!device.context)
            open_device(&device);
        if (create())
            return;
        failed("a queue pair for datagrams: %s", strerror(errno));
        drop();
        if (has_failed(&device))
            close_device(&device);
    }
}

/* Sends a message. False: the queue pair must be made anew. */
static bool send_to(const struct place *to, struct message message)
{
    struct ibv_ah_attr attr = {.is_global = 1,
                               .port_num = 1,
                               .grh = {.dgid = to->gid, .sgid_index = (uint8_t)gid_index, .hop_limit = 64}};
    struct ibv_ah *ah = ibv_create_ah(device.pd, &attr);
    uint8_t *at = device.buffer + RECEIVES * SLOT_BYTES;
    if (!ah)
        return false;
    memcpy(at, &message, sizeof message);
    struct ibv_sge sge = {(uintptr_t)at, sizeof message, device.mr->lkey};
    struct ibv_send_wr wr = {.wr_id = RECEIVES, .sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_SEND,
                             .send_flags = IBV_SEND_SIGNALED}, *bad;
    wr.wr.ud.ah = ah;
    wr.wr.ud.remote_qpn = to->qpn;
    wr.wr.ud.remote_qkey = QKEY;
    const bool sent = ibv_post_send(qp, &wr, &bad) == 0;
    ibv_destroy_ah(ah);
    return sent;
}

/* Receives a message. `broken`: the queue pair must be made anew. */
static bool receive(struct message *message, union ibv_gid *from, bool *broken, int milliseconds)
{
    const long end = now_ms() + milliseconds;
    struct ibv_wc wc;
    while (now_ms() < end && completed(&device, &wc, (int)(end - now_ms()))) {
        if (wc.status != IBV_WC_SUCCESS) {
            *broken = true;
            return false;
        }
        if (!(wc.opcode & IBV_WC_RECV))
            continue;
        const uint8_t *slot = device.buffer + wc.wr_id * SLOT_BYTES;
        memcpy(message, slot + GRH_BYTES, sizeof *message);
        memset(from, 0, sizeof *from);
        /* IPv4: the GRH's last 20 bytes are the header. */
        from->raw[10] = from->raw[11] = 0xff;
        memcpy(from->raw + 12, slot + 20 + 12, 4);
        *broken = !post_receive(wc.wr_id);
        return true;
    }
    return false;
}

static int serve(int fd)
{
    bool broken = false;
    for (;;) {
        struct place place = {.ok = 1};
        struct message message;
        union ibv_gid from;
        prepare(broken);
        broken = false;
        succeeded();
        struct pollfd asked = {.fd = fd, .events = POLLIN};
        if (poll(&asked, 1, 0) == 1) {
            char question;
            if (recv(fd, &question, sizeof question, 0) <= 0)
                break;
            gid_index = find_gid(&device, &gid);
            place.ok = gid_index >= 0;
            place.qpn = qp->qp_num;
            place.gid = gid;
            send(fd, &place, sizeof place, MSG_NOSIGNAL);
        }
        if (receive(&message, &from, &broken, PAUSE)) {
            const struct place client = {.qpn = message.qpn, .gid = from};
            message.number *= 2;
            if (!broken && !send_to(&client, message)) {
                fprintf(stderr, "an answer is not sent: %s\n", strerror(errno));
                broken = true;
            }
        } else if (broken)
            fprintf(stderr, "the queue pair of the server has failed\n");
    }
    drop();
    close_device(&device);
    return 0;
}

static void request(uint64_t number)
{
    bool broken = false;
    for (;;) {
        struct place place;
        struct message message;
        union ibv_gid from;
        prepare(broken);
        broken = false;
        if (!ask("?", 1, &place, sizeof place)) {
            failed("the server does not answer");
            start_server(program);
            continue;
        }
        if (place.ok && send_to(&place, (struct message){number, qp->qp_num})) {
            const long end = now_ms() + ANSWER_TIME;
            while (!broken && now_ms() < end)
                if (receive(&message, &from, &broken, ANSWER_TIME) && message.number == 2 * number) {
                    succeeded();
                    return;
                }
        } else
            broken = true;
        failed("no answer to request %lu", number);
    }
}

int main(int argc, char **argv)
{
    NEED(argc == 1 || (argc == 3 && strcmp(argv[1], "serve") == 0), "usage: datagram_service");
    program = argv[0];
    succeeded();
    if (argc == 3)
        return serve(atoi(argv[2]));
    start_server(program);
    /* It opens the device first, so that the processes have the same numbers in each run of a walk. */
    struct place place;
    if (!ask("?", 1, &place, sizeof place))
        start_server(program);
    for (uint64_t i = 1; i <= REQUESTS; i++)
        request(i);
    drop();
    close_device(&device);
    close(control);
    waitpid(server, NULL, 0);
    puts("done");
    return 0;
}
