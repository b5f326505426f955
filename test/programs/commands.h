/*
 * Queues that firmware commands make (mlx5dv_devx_…), without a call of verbs for them: a context with a completion
 * queue, an RC queue pair with a pool of receives, a target and an initiator of DC, a channel of events, and a key
 * whose ranges work requests set (UMR).
 */
#ifndef COMMANDS_H
#define COMMANDS_H

#include <endian.h>
#include <infiniband/mlx5dv.h>
#include <poll.h>

#include "endpoint.h"

#define KEY 0x1122334455667788ull
#define COOKIE 0x5555aaaa5555aaaaull
#define ENTRIES 64
#define REQUESTS 16
#define BLOCK 64
#define STRIDE 32
#define ROUNDS 100
/* In the queues' memory. */
#define SENDS_AT 8192
#define INITIATOR_AT 12288
#define POOL_AT 16384
#define QUEUE_BYTES 32768
#define DATA_BYTES 4096

/* Opcodes of commands, and of requests. */
enum { CREATE_CQ = 0x400, CREATE_QP = 0x500, TO_INIT = 0x502, TO_RTR = 0x503, TO_RTS = 0x504, QUERY_QP = 0x50b };
enum { TO_RST = 0x50a, CREATE_DCT = 0x710, CREATE_RMP = 0x90c, CREATE_MKEY = 0x200 };
enum { WRITE = 0x08, SEND_IMM = 0x0b, UMR = 0x25 };
enum { EVENT_COMP = 0 };
enum { TYPE_RC = 0, TYPE_DCI = 5, SHARED_RECEIVES = 1 };
/* Where a command has the contexts of its queues, in bits. */
enum { CQC = 0x80, QPC = 0xc0, RMPC_WQ = 0x280, DCTC = 0x80, MKC = 0x80, PATH = QPC + 0xc0 };

struct side {
    struct ibv_context *context;
    struct ibv_pd *pd;
    struct ibv_mr *mr;
    uint32_t pdn, eqn, cqn, rmpn, dctn, key_index, rkey;
    uint8_t *queues, *data;
    uint32_t *records; /* of this side, four of two words */
    struct mlx5dv_devx_umem *umem, *record_umem;
    struct mlx5dv_devx_uar *uar;
    struct mlx5dv_devx_obj *cq, *pool, *target, *key;
    struct mlx5dv_devx_event_channel *channel;
    uint32_t polled, armed, received;
    struct sender {
        struct mlx5dv_devx_obj *qp;
        uint32_t qpn, posted, record;
        uint8_t *blocks;
    } rc, dci;
};
enum { CQ_RECORD, POOL_RECORD, RC_RECORD, DCI_RECORD, RECORDS };

/* Stores `width` bits at bit `at` of a big-endian struct. */
static void put(void *at_struct, unsigned at, unsigned width, uint64_t value)
{
    uint8_t *bytes = at_struct;
    for (unsigned i = 0; i < width; i++) {
        const unsigned bit = at + width - 1 - i;
        const uint8_t mask = (uint8_t)(0x80 >> (bit & 7));
        bytes[bit >> 3] = (uint8_t)((bytes[bit >> 3] & ~mask) | ((value >> i & 1) ? mask : 0));
    }
}

static uint32_t get(const void *at_struct, unsigned at, unsigned width)
{
    const uint8_t *bytes = at_struct;
    uint32_t value = 0;
    for (unsigned bit = at; bit < at + width; bit++)
        value = value << 1 | (bytes[bit >> 3] >> (7 - (bit & 7)) & 1);
    return value;
}

/* Creates are to be refused: their results are NULL. */
static bool must_fail;

static struct mlx5dv_devx_obj *create(struct side *side, const char *what, uint8_t *in, size_t bytes, uint32_t *number)
{
    uint8_t out[16] = {0};
    struct mlx5dv_devx_obj *object = mlx5dv_devx_obj_create(side->context, in, bytes, out, sizeof out);
    if (must_fail) {
        NEED(!object, "a %s was created", what);
        NEED(out[0] != 0, "create a %s: %s, without a status of the firmware", what, strerror(errno));
        return NULL;
    }
    NEED(object, "create a %s: %s, syndrome 0x%x", what, strerror(errno), get(out, 0x20, 32));
    *number = get(out, 0x48, 24);
    return object;
}

static uint64_t record_offset(const struct side *side, int record)
{
    return (uint64_t)((uint8_t *)(side->records + 2 * record) - (uint8_t *)side->records);
}

static void create_cq(struct side *side)
{
    uint8_t in[272] = {0};
    put(in, 0, 16, CREATE_CQ);
    put(in, CQC + 0x20, 32, side->record_umem->umem_id);
    put(in, CQC + 0x1c0, 64, record_offset(side, CQ_RECORD));
    put(in, CQC + 0x63, 5, 6);
    put(in, CQC + 0x68, 24, side->uar->page_id);
    put(in, CQC + 0xa0, 32, side->eqn);
    put(in, 0x2c0, 32, side->umem->umem_id);
    side->cq = create(side, "completion queue", in, sizeof in, &side->cqn);
    if (!side->cq)
        return;
    for (int i = 0; i < ENTRIES; i++)
        side->queues[i * 64 + 63] = 0xf1; /* invalid, and of the hardware */
    const uint16_t events[] = {EVENT_COMP};
    const int error = mlx5dv_devx_subscribe_devx_event(side->channel, side->cq, sizeof events, (uint16_t *)events, COOKIE);
    NEED(error == 0, "subscribe: %s", strerror(error));
}

static void create_pool(struct side *side)
{
    uint8_t in[272] = {0};
    put(in, 0, 16, CREATE_RMP);
    put(in, 0x108, 4, 1);
    put(in, RMPC_WQ, 4, 1); /* a ring */
    put(in, RMPC_WQ + 0x48, 24, side->pdn);
    put(in, RMPC_WQ + 0x80, 64, record_offset(side, POOL_RECORD));
    put(in, RMPC_WQ + 0x10c, 4, 5);
    put(in, RMPC_WQ + 0x11b, 5, 4);
    put(in, RMPC_WQ + 0x140, 32, side->record_umem->umem_id);
    put(in, RMPC_WQ + 0x160, 32, side->umem->umem_id);
    put(in, RMPC_WQ + 0x180, 64, POOL_AT);
    side->pool = create(side, "receive pool", in, sizeof in, &side->rmpn);
}

static void make_qp(struct side *side, struct sender *sender, int type, uint32_t at, int record)
{
    uint8_t in[272] = {0};
    put(in, 0, 16, CREATE_QP);
    put(in, QPC + 0x08, 8, (uint64_t)type);
    put(in, QPC + 0x13, 2, 3);
    put(in, QPC + 0x28, 24, side->pdn);
    put(in, QPC + 0x51, 4, 4);
    put(in, QPC + 0x68, 24, side->uar->page_id);
    put(in, QPC + 0x88, 24, 0xffffff);
    put(in, QPC + 0x3e8, 24, side->cqn);
    put(in, QPC + 0x4e8, 24, side->cqn);
    put(in, QPC + 0x500, 64, record_offset(side, record));
    put(in, QPC + 0x565, 3, SHARED_RECEIVES);
    put(in, QPC + 0x568, 24, side->rmpn);
    put(in, QPC + 0x720, 32, side->record_umem->umem_id);
    put(in, 0x800, 64, at);
    put(in, 0x840, 32, side->umem->umem_id);
    sender->blocks = side->queues + at;
    sender->record = (uint32_t)record;
    sender->qp = create(side, "queue pair", in, sizeof in, &sender->qpn);
}

static void modify(struct sender *sender, int opcode, uint8_t *in)
{
    uint8_t out[16] = {0};
    put(in, 0, 16, (uint64_t)opcode);
    put(in, 0x48, 24, sender->qpn);
    const int error = mlx5dv_devx_obj_modify(sender->qp, in, 272, out, sizeof out);
    NEED(error == 0, "command 0x%x: %s, syndrome 0x%x", opcode, strerror(error), get(out, 0x20, 32));
}

static void start(struct sender *sender, const union ibv_gid *peer, uint32_t peer_qpn, int gid_index)
{
    uint8_t init[272] = {0}, receive[272] = {0}, send[272] = {0};
    put(init, QPC + 0x490, 3, 7);
    put(init, PATH + 0x128, 8, 1);
    modify(sender, TO_INIT, init);
    put(receive, QPC + 0x40, 3, IBV_MTU_1024);
    put(receive, QPC + 0x43, 5, 30);
    if (peer) {
        put(receive, QPC + 0xa8, 24, peer_qpn);
        put(receive, QPC + 0x4a3, 5, 1);
        put(receive, PATH + 0x48, 8, (uint64_t)gid_index);
        put(receive, PATH + 0x58, 8, 64);
        put(receive, PATH + 0x110, 16, 0xdcba);
        put(receive, PATH + 0x128, 8, 1);
        memcpy(receive + (PATH + 0x80) / 8, peer, 16);
    }
    modify(sender, TO_RTR, receive);
    put(send, QPC + 0x38d, 3, 7);
    put(send, QPC + 0x390, 3, 7);
    put(send, PATH + 0x40, 5, 14);
    modify(sender, TO_RTS, send);
    uint8_t in[16] = {0}, out[272] = {0};
    put(in, 0, 16, QUERY_QP);
    put(in, 0x48, 24, sender->qpn);
    NEED(mlx5dv_devx_obj_query(sender->qp, in, sizeof in, out, sizeof out) == 0, "query a queue pair: %s", strerror(errno));
    NEED(get(out, QPC, 4) == 3, "the queue pair is in state %u", get(out, QPC, 4));
}

static void create_target(struct side *side, int gid_index)
{
    uint8_t in[176] = {0};
    put(in, 0, 16, CREATE_DCT);
    put(in, DCTC + 0x28, 24, 0xabc);
    put(in, DCTC + 0x48, 24, side->cqn);
    put(in, DCTC + 0x6c, 3, 7);
    put(in, DCTC + 0x93, 5, 1);
    put(in, DCTC + 0xa8, 24, side->rmpn);
    put(in, DCTC + 0xc8, 24, side->pdn);
    put(in, DCTC + 0x100, 64, KEY);
    put(in, DCTC + 0x145, 3, IBV_MTU_1024);
    put(in, DCTC + 0x168, 8, (uint64_t)gid_index);
    side->target = create(side, "target", in, sizeof in, &side->dctn);
}

/* Ranges are a list of four at most. */
static void create_key(struct side *side)
{
    uint8_t in[272] = {0};
    put(in, 0, 16, CREATE_MKEY);
    put(in, MKC + 1, 1, 1);     /* free */
    put(in, MKC + 0x10, 1, 1);  /* umr_en */
    put(in, MKC + 0x16, 2, 2);  /* KLM */
    put(in, MKC + 0x20, 24, 0xffffff);
    put(in, MKC + 0x68, 24, side->pdn);
    put(in, MKC + 0x1a0, 32, 4);
    side->key = create(side, "key", in, sizeof in, &side->key_index);
    side->rkey = side->key_index << 8;
}

static struct ibv_context *open_with_commands(const char *name)
{
    struct mlx5dv_context_attr attr = {.flags = MLX5DV_CONTEXT_FLAGS_DEVX};
    struct ibv_context *context = NULL;
    struct ibv_device **list = ibv_get_device_list(NULL);
    NEED(list, "ibv_get_device_list: %s", strerror(errno));
    for (int i = 0; list[i] && !context; i++)
        if (strcmp(name, ibv_get_device_name(list[i])) == 0) {
            context = mlx5dv_open_device(list[i], &attr);
            NEED(context, "mlx5dv_open_device %s: %s", name, strerror(errno));
        }
    ibv_free_device_list(list);
    NEED(context, "there is no device %s", name);
    return context;
}

static void open_side(struct side *side, const char *name, uint8_t *records)
{
    side->context = open_with_commands(name);
    side->pd = ibv_alloc_pd(side->context);
    NEED(side->pd, "ibv_alloc_pd: %s", strerror(errno));
    struct mlx5dv_pd pd = {0};
    struct mlx5dv_obj object = {.pd = {.in = side->pd, .out = &pd}};
    NEED(mlx5dv_init_obj(&object, MLX5DV_OBJ_PD) == 0, "mlx5dv_init_obj failed");
    side->pdn = pd.pdn;
    NEED(posix_memalign((void **)&side->queues, 4096, QUEUE_BYTES + DATA_BYTES) == 0, "no memory");
    memset(side->queues, 0, QUEUE_BYTES + DATA_BYTES);
    side->data = side->queues + QUEUE_BYTES;
    side->records = (uint32_t *)records;
    side->mr = ibv_reg_mr(side->pd, side->data, DATA_BYTES, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
    NEED(side->mr, "ibv_reg_mr: %s", strerror(errno));
    side->umem = mlx5dv_devx_umem_reg(side->context, side->queues, QUEUE_BYTES, IBV_ACCESS_LOCAL_WRITE);
    side->record_umem = mlx5dv_devx_umem_reg(side->context, records, RECORDS * 8, IBV_ACCESS_LOCAL_WRITE);
    NEED(side->umem && side->record_umem, "mlx5dv_devx_umem_reg: %s", strerror(errno));
    side->uar = mlx5dv_devx_alloc_uar(side->context, MLX5DV_UAR_ALLOC_TYPE_NC);
    NEED(side->uar, "mlx5dv_devx_alloc_uar: %s", strerror(errno));
    NEED(mlx5dv_devx_query_eqn(side->context, 0, &side->eqn) == 0, "mlx5dv_devx_query_eqn: %s", strerror(errno));
    side->channel = mlx5dv_devx_create_event_channel(side->context, MLX5DV_DEVX_CREATE_EVENT_CHANNEL_FLAGS_OMIT_EV_DATA);
    NEED(side->channel, "mlx5dv_devx_create_event_channel: %s", strerror(errno));
    create_cq(side);
    create_pool(side);
    create_key(side);
    make_qp(side, &side->rc, TYPE_RC, SENDS_AT, RC_RECORD);
    make_qp(side, &side->dci, TYPE_DCI, INITIATOR_AT, DCI_RECORD);
}

static void ring(struct side *side, const void *first)
{
    __sync_synchronize();
    *(volatile uint64_t *)side->uar->reg_addr = *(const uint64_t *)first;
}

UNUSED static void post_receive(struct side *side)
{
    uint8_t *request = side->queues + POOL_AT + side->received++ % REQUESTS * STRIDE;
    put(request, 16 * 8, 32, 64);
    put(request, 20 * 8, 32, side->mr->lkey);
    put(request, 24 * 8, 64, (uintptr_t)side->data);
    __sync_synchronize();
    side->records[2 * POOL_RECORD] = htobe32(side->received & 0xffff);
}

static void post_bytes(struct side *side, struct sender *sender, const uint8_t *request, unsigned bytes)
{
    for (unsigned from = 0; from < bytes; from += BLOCK)
        memcpy(sender->blocks + sender->posted++ % REQUESTS * BLOCK, request + from, BLOCK);
    __sync_synchronize();
    side->records[2 * sender->record + 1] = htobe32(sender->posted & 0xffff);
    ring(side, request);
}

/* Sets the range of a key, where peers may write, to the bytes of `mr`; NULL: invalidates the key. */
static void set_range(struct side *side, struct sender *sender, uint32_t key, const struct ibv_mr *mr)
{
    uint8_t request[3 * BLOCK] = {0};
    const unsigned bytes = mr ? 3 * BLOCK : 2 * BLOCK;
    put(request, 0, 32, (sender->posted & 0xffff) << 8 | UMR);
    put(request, 32, 32, sender->qpn << 8 | bytes / 16);
    put(request, 64, 32, 8);
    put(request, 96, 32, key);
    uint8_t *control = request + 16, *context = control + 48, *range = context + 64;
    put(context, 32, 32, 0xffffff00);
    if (mr) {
        const uint64_t address = (uintptr_t)mr->addr;
        control[0] = 0x80;
        put(control, 32, 16, 4);
        put(control, 64, 64, 1ull << 29 | 0xfull << 18 | 1ull << 6 | 1); /* free, rights, start, length */
        context[2] = 0x20;                                               /* peers may write */
        put(context, 16 * 8, 64, address);
        put(context, 24 * 8, 64, mr->length);
        put(range, 0, 32, mr->length);
        put(range, 32, 32, mr->lkey);
        put(range, 64, 64, address);
    } else {
        control[0] = 0x90;
        put(control, 64, 64, 1ull << 29 | 1ull << 14);
        context[0] = 0x40;
    }
    post_bytes(side, sender, request, bytes);
}

/* A request of 8 bytes; `target`: of the initiator. */
static void post(struct side *side, struct sender *sender, const struct side *peer, const union ibv_gid *gid, int opcode,
                 uint32_t imm, uint32_t target, int gid_index)
{
    uint8_t request[2 * BLOCK] = {0};
    unsigned at = 16;
    if (target) {
        put(request + at, 0, 64, KEY);
        put(request + at, 64, 32, target | 0x80000000u);
        put(request + at, 28 * 8, 32, 1u << 30 | (uint32_t)gid_index << 20);
        memcpy(request + at + 32, gid, 16);
        at += 48;
    }
    if (opcode == WRITE) {
        put(request + at, 0, 64, (uintptr_t)peer->data + 1024);
        put(request + at, 64, 32, peer->rkey);
        at += 16;
    }
    put(request + at, 0, 32, 8);
    put(request + at, 32, 32, side->mr->lkey);
    put(request + at, 64, 64, (uintptr_t)side->data + 2048);
    at += 16;
    put(request, 0, 32, (sender->posted & 0xffff) << 8 | (uint32_t)opcode);
    put(request, 32, 32, sender->qpn << 8 | at / 16);
    put(request, 64, 32, 8);
    put(request, 96, 32, imm);
    post_bytes(side, sender, request, at);
}

static const uint8_t *next_entry(struct side *side)
{
    const volatile uint8_t *entry = side->queues + side->polled % ENTRIES * 64;
    const uint8_t owner = entry[63];
    if (owner >> 4 == 15 || (owner & 1) != (side->polled / ENTRIES & 1))
        return NULL;
    __sync_synchronize();
    side->polled++;
    side->records[2 * CQ_RECORD] = htobe32(side->polled & 0xffffff);
    return (const uint8_t *)entry;
}

static void arm(struct side *side)
{
    const uint32_t word = (side->armed & 3) << 28 | (side->polled & 0xffffff);
    side->records[2 * CQ_RECORD + 1] = htobe32(word);
    __sync_synchronize();
    *(volatile uint64_t *)((uint8_t *)side->uar->base_addr + 0x20) = htobe64((uint64_t)word << 32 | side->cqn);
}

/* Waits for the next completion by an event. */
UNUSED static const uint8_t *wait_for(struct side *side, const char *what)
{
    for (;;) {
        const uint8_t *entry = next_entry(side);
        if (entry) {
            const int kind = entry[63] >> 4;
            NEED(kind != 13 && kind != 14, "%s: error, syndrome 0x%x", what, entry[55]);
            return entry;
        }
        arm(side);
        entry = next_entry(side);
        if (entry)
            return entry;
        struct pollfd wait = {.fd = side->channel->fd, .events = POLLIN};
        NEED(poll(&wait, 1, 20000) == 1, "%s: there is no event", what);
        struct mlx5dv_devx_async_event_hdr event = {0};
        const ssize_t length = mlx5dv_devx_get_event(side->channel, &event, sizeof event);
        NEED(length == sizeof event && event.cookie == COOKIE, "%s: an event of %zd bytes, cookie 0x%llx", what, length,
             (unsigned long long)event.cookie);
        side->armed++;
    }
}

UNUSED static void close_side(struct side *side)
{
    /* the queue pairs use it */
    NEED(mlx5dv_devx_obj_destroy(side->cq) != 0, "the completion queue was destroyed before its queue pairs");
    NEED(mlx5dv_devx_umem_dereg(side->umem) != 0, "the memory was deregistered before its queues");
    if (side->target)
        NEED(mlx5dv_devx_obj_destroy(side->target) == 0, "cannot destroy the target");
    NEED(mlx5dv_devx_obj_destroy(side->rc.qp) == 0 && mlx5dv_devx_obj_destroy(side->dci.qp) == 0,
         "cannot destroy the queue pairs");
    NEED(mlx5dv_devx_obj_destroy(side->key) == 0, "cannot destroy the key");
    NEED(mlx5dv_devx_obj_destroy(side->pool) == 0, "cannot destroy the pool");
    NEED(mlx5dv_devx_obj_destroy(side->cq) == 0, "cannot destroy the completion queue");
    mlx5dv_devx_destroy_event_channel(side->channel);
    NEED(mlx5dv_devx_umem_dereg(side->umem) == 0 && mlx5dv_devx_umem_dereg(side->record_umem) == 0,
         "cannot deregister the memory");
    mlx5dv_devx_free_uar(side->uar);
    NEED(ibv_dereg_mr(side->mr) == 0 && ibv_dealloc_pd(side->pd) == 0, "cannot destroy the domain");
    NEED(ibv_close_device(side->context) == 0, "cannot close the device");
    free(side->queues);
}

#endif
