/*
 * Firmware commands (mlx5dv_devx_…) and requests of another user against the objects of `firmware_queues DEVICE
 * attacked`, whose numbers are the arguments. It has objects of the same kinds. Whatever would reach an object of the
 * other is tried:
 *
 *  - creates that name it by number, and handles: every method of DEVX on each handle, in a context without objects;
 *  - commands about an own object with the number of the other, and by the method for general commands, with all uids;
 *  - requests with its keys, and such that change the ranges of its keys;
 *  - COUNT random commands with its numbers anywhere;
 *  - doorbells with its numbers, in every page of the context that can be mapped.
 *
 * Prints "refused", waits for the end of its standard input, and then has got no event of the other's objects.
 *
 *   firmware_attack DEVICE COUNT NUMBER...
 */
#define _GNU_SOURCE
#include <infiniband/mlx5dv.h>
#include <inttypes.h>
#include <rdma/ib_user_ioctl_cmds.h>
#include <rdma/mlx5_user_ioctl_cmds.h>
#include <rdma/rdma_user_ioctl_cmds.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "../commands.h"

#define HANDLES 128
#define PAGE 4096
#define MAPPED_PAGES 1024
#define COMMAND_BYTES 288
#define LENGTH(array) (sizeof(array) / sizeof *(array))
enum { ERR = 0x507, QUERY_MKEY = 0x201, QUERY_CQ = 0x402, MODIFY_CQ = 0x403, QUERY_DCT = 0x713, QUERY_RMP = 0x90f };
enum { ALLOC_PD = 0x800, ALLOC_XRCD = 0x80e, END_OF_COMMANDS = 0xf00 };

/* Of one side of the other program, in the order of the arguments. */
struct foreign {
    uint32_t pdn, uar, umem, record_umem, cqn, rmpn, rc, dci, dctn, key_index, lkey, rkey;
    uint64_t address;
};
/* The first argument of them. */
enum { FIRST = 3, NUMBERS = 13, WORDS = 12 };

static uint64_t random_state = 1;

/* splitmix64 */
static uint64_t random64(void)
{
    uint64_t x = random_state += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

/* ---- calls without libmlx5, which has handles of its own ---- */

struct message {
    struct ib_uverbs_ioctl_hdr header;
    struct ib_uverbs_attr attributes[6];
};

static struct message begin(uint16_t object, uint16_t method)
{
    return (struct message){.header = {.object_id = object, .method_id = method, .driver_id = RDMA_DRIVER_MLX5}};
}

static void add(struct message *message, unsigned id, size_t length, uint64_t data)
{
    message->attributes[message->header.num_attrs++] = (struct ib_uverbs_attr){
        .attr_id = (uint16_t)id, .len = (uint16_t)length, .flags = UVERBS_ATTR_F_MANDATORY, .data = data};
}

static bool call(int device, struct message *message)
{
    message->header.length =
        (uint16_t)(sizeof message->header + message->header.num_attrs * sizeof *message->attributes);
    return ioctl(device, RDMA_VERBS_IOCTL, message) == 0;
}

/* Attributes of these methods are the object, then input and output. */
static bool about(int device, uint16_t method, uint32_t handle, uint16_t opcode, uint32_t number)
{
    uint8_t in[COMMAND_BYTES] = {0}, out[1024];
    put(in, 0, 16, opcode);
    put(in, 0x40, 32, number);
    struct message message = begin(MLX5_IB_OBJECT_DEVX_OBJ, method);
    add(&message, MLX5_IB_ATTR_DEVX_OBJ_QUERY_HANDLE, 0, handle);
    add(&message, MLX5_IB_ATTR_DEVX_OBJ_QUERY_CMD_IN, sizeof in, (uintptr_t)in);
    add(&message, MLX5_IB_ATTR_DEVX_OBJ_QUERY_CMD_OUT, sizeof out, (uintptr_t)out);
    return call(device, &message);
}

static bool destroy(int device, uint16_t object, uint16_t method, uint32_t handle)
{
    struct message message = begin(object, method);
    add(&message, MLX5_IB_ATTR_DEVX_OBJ_DESTROY_HANDLE, 0, handle);
    return call(device, &message);
}

static bool subscribe(int device, int channel, uint32_t handle)
{
    const uint16_t events[] = {EVENT_COMP};
    struct message message = begin(MLX5_IB_OBJECT_DEVX, MLX5_IB_METHOD_DEVX_SUBSCRIBE_EVENT);
    add(&message, MLX5_IB_ATTR_DEVX_SUBSCRIBE_EVENT_FD_HANDLE, 0, (uint64_t)channel);
    add(&message, MLX5_IB_ATTR_DEVX_SUBSCRIBE_EVENT_OBJ_HANDLE, 0, handle);
    uint64_t data = 0;
    memcpy(&data, events, sizeof events);
    add(&message, MLX5_IB_ATTR_DEVX_SUBSCRIBE_EVENT_TYPE_NUM_LIST, sizeof events, data);
    add(&message, MLX5_IB_ATTR_DEVX_SUBSCRIBE_EVENT_COOKIE, 8, COOKIE);
    return call(device, &message);
}

/* Commands about an object: their opcode, method, and the number that they name. */
struct about {
    uint16_t opcode, method;
    uint32_t number;
};
#define QUERY MLX5_IB_METHOD_DEVX_OBJ_QUERY
#define MODIFY MLX5_IB_METHOD_DEVX_OBJ_MODIFY
enum { ABOUT = 8 };

static void list_commands(const struct foreign *foreign, struct about commands[ABOUT])
{
    const struct about list[ABOUT] = {
        {QUERY_QP, QUERY, foreign->rc},         {ERR, MODIFY, foreign->rc},          {TO_RST, MODIFY, foreign->dci},
        {QUERY_CQ, QUERY, foreign->cqn},        {MODIFY_CQ, MODIFY, foreign->cqn},   {QUERY_DCT, QUERY, foreign->dctn},
        {QUERY_MKEY, QUERY, foreign->key_index}, {QUERY_RMP, QUERY, foreign->rmpn},
    };
    memcpy(commands, list, sizeof list);
}

/* ---- the attacks ---- */

static void try_handles(const char *name, const struct about *commands)
{
    struct ibv_context *context = open_with_commands(name);
    struct mlx5dv_devx_event_channel *channel = mlx5dv_devx_create_event_channel(context, 0);
    NEED(channel, "mlx5dv_devx_create_event_channel: %s", strerror(errno));
    const int device = context->cmd_fd;
    for (uint32_t handle = 0; handle < HANDLES; handle++) {
        NEED(!destroy(device, MLX5_IB_OBJECT_DEVX_OBJ, MLX5_IB_METHOD_DEVX_OBJ_DESTROY, handle), "object %u destroyed",
             handle);
        NEED(!destroy(device, MLX5_IB_OBJECT_DEVX_UMEM, MLX5_IB_METHOD_DEVX_UMEM_DEREG, handle),
             "memory %u deregistered", handle);
        NEED(!subscribe(device, channel->fd, handle), "events of object %u", handle);
        for (int i = 0; i < ABOUT; i++)
            NEED(!about(device, commands[i].method, handle, commands[i].opcode, commands[i].number),
                 "command 0x%x of object %u", commands[i].opcode, handle);
    }
    mlx5dv_devx_destroy_event_channel(channel);
    NEED(ibv_close_device(context) == 0, "cannot close the device");
}

/* Each number in place of the own. */
static void try_creates(struct side *own, const struct foreign *foreign, int gid_index)
{
    struct mlx5dv_devx_umem umem = {.umem_id = foreign->umem}, record_umem = {.umem_id = foreign->record_umem};
    struct mlx5dv_devx_uar uar = *own->uar;
    uar.page_id = foreign->uar;
    must_fail = true;
    for (int which = 0; which < 6; which++) {
        struct side side = *own;
        if (which == 0)
            side.pdn = foreign->pdn;
        else if (which == 1)
            side.uar = &uar;
        else if (which == 2)
            side.umem = &umem;
        else if (which == 3)
            side.record_umem = &record_umem;
        else if (which == 4)
            side.cqn = foreign->cqn;
        else
            side.rmpn = foreign->rmpn;
        struct sender sender;
        if (which != 4)
            make_qp(&side, &sender, TYPE_DCI, INITIATOR_AT, DCI_RECORD);
        make_qp(&side, &sender, TYPE_RC, SENDS_AT, RC_RECORD);
        if (which == 1 || which == 2 || which == 3)
            create_cq(&side);
        if (which == 0 || which == 2 || which == 3)
            create_pool(&side);
        if (which == 0)
            create_key(&side);
        if (which == 0 || which == 4 || which == 5)
            create_target(&side, gid_index);
    }
    must_fail = false;
}

static void try_numbers(struct side *own, const struct about *commands)
{
    struct mlx5dv_devx_obj *objects[] = {own->cq, own->pool, own->key, own->rc.qp, own->dci.qp};
    for (int i = 0; i < ABOUT; i++) {
        uint8_t in[COMMAND_BYTES] = {0}, out[1024];
        put(in, 0, 16, commands[i].opcode);
        put(in, 0x40, 32, commands[i].number);
        for (unsigned k = 0; k < LENGTH(objects); k++)
            NEED((commands[i].method == QUERY ? mlx5dv_devx_obj_query : mlx5dv_devx_obj_modify)(
                     objects[k], in, sizeof in, out, sizeof out) != 0,
                 "command 0x%x with an own handle", commands[i].opcode);
    }
    /* By the method for general commands, with the uids of all contexts. */
    for (uint16_t uid = 0; uid < 8; uid++)
        for (int i = 0; i < ABOUT; i++) {
            uint8_t in[COMMAND_BYTES] = {0}, out[1024] = {0};
            put(in, 0, 16, commands[i].opcode);
            put(in, 16, 16, uid);
            put(in, 0x40, 32, commands[i].number);
            NEED(mlx5dv_devx_general_cmd(own->context, in, sizeof in, out, sizeof out) != 0,
                 "command 0x%x as a general one", commands[i].opcode);
        }
}

/* Brings a pair of queue pairs, one of which is perhaps in the state ERR, to RTS again. */
static void connect_again(struct side *own, struct side *peer, const union ibv_gid *gid, int gid_index)
{
    struct side *sides[] = {own, peer};
    for (int i = 0; i < 2; i++) {
        uint8_t in[272] = {0};
        modify(&sides[i]->rc, TO_RST, in);
        sides[i]->rc.posted = 0;
        sides[i]->records[2 * RC_RECORD + 1] = 0;
    }
    start(&own->rc, gid, peer->rc.qpn, gid_index);
    start(&peer->rc, gid, own->rc.qpn, gid_index);
}

/* Waits for the completion of the next request that has one; true if it is an error. */
static bool has_failed(struct side *side)
{
    for (;;) {
        const uint8_t *entry = next_entry(side);
        if (entry)
            return entry[63] >> 4 == 13;
    }
}

static void try_keys(struct side *own, struct side *peer, const struct foreign *foreign, const union ibv_gid *gid,
                     int gid_index)
{
    connect_again(own, peer, gid, gid_index);
    set_range(own, &own->rc, own->rkey, own->mr);
    NEED(!has_failed(own), "the range of the own key");
    set_range(peer, &peer->rc, peer->rkey, peer->mr);
    NEED(!has_failed(peer), "the range of the peer's key");
    post(own, &own->rc, peer, gid, WRITE, 0, 0, gid_index);
    NEED(!has_failed(own), "a WRITE to the own key");

    struct ibv_mr region = {.lkey = foreign->lkey, .rkey = foreign->rkey, .addr = (void *)(uintptr_t)foreign->address,
                            .length = DATA_BYTES};
    for (int which = 0; which < 7; which++) {
        struct side side = *own;
        struct side to = *peer;
        if (which == 0 || which == 1 || which == 3)
            to.data = region.addr;
        if (which == 3) { /* an own key over the other's region */
            set_range(peer, &peer->rc, peer->rkey, &region);
            NEED(!has_failed(peer), "the range of an own key");
        }
        if (which == 4) { /* the other's key over the own region */
            set_range(&side, &side.rc, foreign->key_index << 8, own->mr);
        } else if (which >= 5) {
            set_range(&side, &side.rc, which == 5 ? foreign->key_index << 8 : foreign->rkey, NULL);
        } else {
            if (which == 0)
                to.rkey = foreign->key_index << 8;
            if (which == 1)
                to.rkey = foreign->rkey;
            if (which == 2)
                side.mr = &region, side.data = region.addr;
            post(&side, &side.rc, &to, gid, WRITE, 0, 0, gid_index);
        }
        own->rc.posted = side.rc.posted;
        NEED(has_failed(own), "request %d", which);
        connect_again(own, peer, gid, gid_index);
        /* completions of flushed requests */
        while (next_entry(own) || next_entry(peer))
            ;
    }
}

/* `numbers`: of both sides. What is created is of the own objects, and goes with the context. */
static void try_anything(const char *name, const struct foreign *foreign, long count)
{
    static const uint16_t creates[] = {CREATE_MKEY, CREATE_CQ, CREATE_QP, CREATE_DCT, CREATE_RMP, ALLOC_PD, ALLOC_XRCD};
    uint8_t *records;
    NEED(posix_memalign((void **)&records, PAGE, PAGE) == 0, "no memory");
    static struct side own;
    open_side(&own, name, records);
    const uint32_t *numbers = (const uint32_t *)foreign;
    const uint32_t mine[] = {own.pdn, own.uar->page_id, own.umem->umem_id, own.cqn, own.rmpn, own.mr->lkey};
    struct mlx5dv_devx_obj *objects[] = {own.cq, own.pool, own.key, own.rc.qp, own.dci.qp};
    for (int i = 0; i < count; i++) {
        uint8_t in[COMMAND_BYTES] = {0}, out[1024];
        put(in, 0, 16, random64() % 4 ? creates[random64() % LENGTH(creates)] : random64() % END_OF_COMMANDS);
        put(in, 16, 16, random64() % 8);
        for (uint64_t k = random64() % 24; k > 0; k--) {
            const uint64_t word = 2 + random64() % (sizeof in / 4 - 2);
            const uint32_t value = random64() % 2 ? numbers[random64() % WORDS] : mine[random64() % LENGTH(mine)];
            put(in, 32 * word, 32, random64() % 4 ? value : random64() % 16 << random64() % 32);
        }
        struct mlx5dv_devx_obj *object = objects[random64() % LENGTH(objects)];
        switch (random64() % 4) {
        case 0: mlx5dv_devx_general_cmd(own.context, in, sizeof in, out, sizeof out); break;
        case 1: mlx5dv_devx_obj_modify(object, in, sizeof in, out, sizeof out); break;
        case 2: mlx5dv_devx_obj_query(object, in, sizeof in, out, sizeof out); break;
        default: mlx5dv_devx_obj_create(own.context, in, sizeof in, out, sizeof out);
        }
    }
}

static void try_doorbells(const char *name, const struct foreign *foreign)
{
    struct ibv_context *context = open_with_commands(name);
    unsigned mapped = 0;
    for (off_t page = 0; page < MAPPED_PAGES; page++) {
        uint32_t *words = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, context->cmd_fd, page * PAGE);
        if (words == MAP_FAILED)
            continue;
        mapped++;
        for (unsigned i = 0; i < PAGE / 4; i += 2) {
            words[i] = htobe32(i % 4 ? 0 : foreign->rc << 8);
            words[i + 1] = htobe32(i % 8 ? foreign->cqn : foreign->dci << 8);
        }
        munmap(words, PAGE);
    }
    NEED(ibv_close_device(context) == 0, "cannot close the device");
    NEED(mapped > 0, "no page can be mapped");
}

int main(int argc, char **argv)
{
    NEED(argc == FIRST + 2 * NUMBERS, "usage: firmware_attack DEVICE COUNT NUMBER...");
    const long count = strtol(argv[2], NULL, 10);
    struct foreign others[2];
    for (int i = 0; i < 2; i++) {
        uint32_t *words = (uint32_t *)&others[i];
        for (int k = 0; k < WORDS; k++)
            words[k] = (uint32_t)strtoul(argv[FIRST + i * NUMBERS + k], NULL, 10);
        others[i].address = strtoull(argv[FIRST + i * NUMBERS + WORDS], NULL, 10);
    }
    others[0].dctn = others[1].dctn; /* the first side has none */
    uint8_t *records;
    NEED(posix_memalign((void **)&records, PAGE, PAGE) == 0, "no memory");
    memset(records, 0, PAGE);
    static struct side own, peer;
    open_side(&own, argv[1], records);
    open_side(&peer, argv[1], records + 2048);
    const int index = choose_gid(own.context, -1);
    union ibv_gid gid;
    NEED(ibv_query_gid(own.context, 1, index, &gid) == 0, "GID %d: %s", index, strerror(errno));
    struct about commands[ABOUT];
    for (int i = 0; i < 2; i++) {
        list_commands(&others[i], commands);
        try_creates(&own, &others[i], index);
        try_numbers(&own, commands);
        try_handles(argv[1], commands);
        try_keys(&own, &peer, &others[i], &gid, index);
        try_anything(argv[1], &others[i], count);
        try_doorbells(argv[1], &others[i]);
    }
    puts("refused");
    fflush(stdout);
    NEED(getchar() == EOF, "a line, not the end of the input");
    struct pollfd wait[] = {{.fd = own.channel->fd, .events = POLLIN}, {.fd = peer.channel->fd, .events = POLLIN}};
    NEED(poll(wait, 2, 0) == 0, "an event");
    puts("no event");
    return 0;
}
