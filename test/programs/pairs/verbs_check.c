/*
 * Transfers data by SEND, WRITE, READ and atomics of RC, and compares every byte on both sides.
 *
 *   verbs_check [options]          server: waits for a client on the TCP port
 *   verbs_check [options] HOST     client
 *   verbs_check [options] -1       both ends in one process
 *
 *   -d DEVICE  -x DEVICE (of the second end, with -1)  -g GID-INDEX  -p TCP-PORT  -m MTU  -s BYTES (largest operation)
 *   -n OPERATIONS (at least)  -S SEED  -e (completion events)  -t SECONDS (give up; 60)  -v (print every operation)
 *
 * Both ends generate the same script of operations from the seed, and apply it to models of both buffers. After each
 * batch the buffers must equal the models. The operations of a batch use different slots of the buffers, so that the
 * result does not depend on timing.
 */
#define _GNU_SOURCE

#include "../endpoint.h"
#include "../pattern.h"
#include "../tcp.h"

#define BATCH 16
#define MARGIN 256 /* bytes of a slot for the first offset, the gaps between elements, and longer receives */
#define RECEIVE_ID 1000 /* wr_id of a receive: RECEIVE_ID + its slot; of a request: its slot */

enum kind { SEND, SEND_IMM, WRITE, WRITE_IMM, READ, COMPARE_SWAP, FETCH_ADD, KINDS };
static const char *const kind_names[KINDS] = {"send", "send_imm", "write", "write_imm",
                                              "read", "cmp_swap", "fetch_add"};

/* A scatter/gather element; `offset`: in the slot. */
struct element {
    uint32_t offset, length;
};

struct operation {
    enum kind kind;
    int poster; /* the end that posts the operation */
    uint32_t size;
    int local_count, remote_count;
    /* remote: the elements of the receive for SEND and SEND_IMM, else one element */
    struct element local[MAX_SGE], remote[MAX_SGE];
    bool is_inline, is_signaled;
    uint32_t immediate;
    uint64_t compare, swap; /* swap: the addend of FETCH_ADD */
};

static struct options options;
static size_t largest_size = 65536;
static size_t slot_size, buffer_bytes;
static long operations = 1000;
static uint64_t seed = 1;
static bool is_verbose;

static struct endpoint ends[2];
static struct address addresses[2];
static bool is_local[2];
static uint8_t *models[2];
static int peer_socket = -1;

/* ---- pseudo-random ---- */

static uint64_t random_state;

static uint64_t next_random(void)
{
    return mix(random_state += 0x9e3779b97f4a7c15u);
}

static uint32_t below(uint32_t limit)
{
    return (uint32_t)(next_random() % limit);
}

/* ---- the script ---- */

static uint32_t random_size(void)
{
    const uint32_t mtu = (uint32_t)options.mtu, limit = (uint32_t)largest_size;
    uint32_t size;
    switch (below(6)) {
    case 0: /* small */
        size = below(65);
        break;
    case 1: /* a multiple of the MTU, or one byte more or less */
        size = mtu * (1 + below(4)) - 1;
        size += below(3);
        break;
    case 2:
        size = mtu * below(5);
        break;
    case 3: /* large */
        size = limit - below(8);
        break;
    default:
        size = below(limit + 1);
    }
    return size > limit ? limit : size;
}

/*
 * Splits `size` bytes into scatter/gather elements with gaps between them. An empty element is not allowed: hardware
 * reads length 0 as 2 GiB.
 */
static int random_elements(struct element *elements, uint32_t size)
{
    const int max = 1 + (int)below(MAX_SGE);
    uint32_t offset = below(32);
    int count = 0;
    while (size > 0) {
        const uint32_t length = count == max - 1 ? size : 1 + below(size);
        elements[count++] = (struct element){offset, length};
        offset += length + below(17);
        size -= length;
    }
    return count;
}

static bool is_atomic(const struct operation *op)
{
    return op->kind == COMPARE_SWAP || op->kind == FETCH_ADD;
}

static void random_operation(struct operation *op)
{
    *op = (struct operation){0};
    op->kind = (enum kind)below(KINDS);
    op->poster = (int)below(2);
    op->immediate = (uint32_t)next_random();
    op->is_signaled = below(2);
    if (is_atomic(op)) {
        op->size = 8;
        op->local_count = op->remote_count = 1;
        op->local[0] = (struct element){below(64), 8};
        op->remote[0] = (struct element){8 * below(8), 8};
        op->compare = below(2) ? next_random() : 0; /* 0: `apply` stores the current value */
        op->swap = next_random();
        return;
    }
    op->size = random_size();
    op->local_count = random_elements(op->local, op->size);
    if (op->kind == SEND || op->kind == SEND_IMM) {
        /* A receive may be longer than the message. */
        op->remote_count = random_elements(op->remote, op->size);
        if (op->remote_count > 0)
            op->remote[op->remote_count - 1].length += below(9);
    } else {
        op->remote_count = 1;
        op->remote[0] = (struct element){below(32), op->size};
    }
    op->is_inline = op->kind != READ && op->size <= 32 && below(2);
}

/* Copies `size` bytes between scatter/gather lists in two slots. */
static void copy_elements(uint8_t *to, const struct element *to_element, const uint8_t *from,
                          const struct element *from_element, uint32_t size)
{
    uint32_t to_done = 0, from_done = 0;
    while (size > 0) {
        uint32_t length = size;
        if (to_element->length - to_done < length)
            length = to_element->length - to_done;
        if (from_element->length - from_done < length)
            length = from_element->length - from_done;
        memcpy(to + to_element->offset + to_done, from + from_element->offset + from_done, length);
        size -= length;
        to_done += length;
        from_done += length;
        if (to_done == to_element->length)
            to_element++, to_done = 0;
        if (from_done == from_element->length)
            from_element++, from_done = 0;
    }
}

/* Applies the operation to the models. Replaces a `compare` of 0 by the current value. */
static void apply(struct operation *op, int slot)
{
    uint8_t *local = models[op->poster] + slot * slot_size, *remote = models[!op->poster] + slot * slot_size;
    uint64_t old, new_value;
    switch (op->kind) {
    case READ:
        copy_elements(local, op->local, remote, op->remote, op->size);
        break;
    case COMPARE_SWAP:
    case FETCH_ADD:
        memcpy(&old, remote + op->remote[0].offset, 8);
        memcpy(local + op->local[0].offset, &old, 8);
        if (op->kind == COMPARE_SWAP && op->compare == 0)
            op->compare = old;
        if (op->kind == FETCH_ADD)
            new_value = old + op->swap;
        else
            new_value = old == op->compare ? op->swap : old;
        memcpy(remote + op->remote[0].offset, &new_value, 8);
        break;
    default:
        copy_elements(remote, op->remote, local, op->local, op->size);
    }
}

/* ---- posting ---- */

static bool receives(const struct operation *op)
{
    return op->kind == SEND || op->kind == SEND_IMM || op->kind == WRITE_IMM;
}

static void fill_sges(struct ibv_sge *sge, const struct endpoint *end, int slot, const struct element *elements,
                        int count)
{
    for (int i = 0; i < count; i++)
        sge[i] = (struct ibv_sge){(uintptr_t)end->buffer + slot * slot_size + elements[i].offset, elements[i].length,
                                  end->mr->lkey};
}

static void post_receive(const struct endpoint *end, const struct operation *op, int slot)
{
    struct ibv_sge sge[MAX_SGE];
    const bool has_buffer = op->kind != WRITE_IMM;
    fill_sges(sge, end, slot, op->remote, op->remote_count);
    struct ibv_recv_wr *bad, wr = {.wr_id = RECEIVE_ID + (uint64_t)slot, .sg_list = sge};
    wr.num_sge = has_buffer ? op->remote_count : 0;
    const int error = ibv_post_recv(end->qp, &wr, &bad);
    NEED(error == 0, "ibv_post_recv: %s", strerror(error));
}

static void post_operation(const struct endpoint *end, const struct operation *op, int slot)
{
    static const enum ibv_wr_opcode opcodes[KINDS] = {IBV_WR_SEND,      IBV_WR_SEND_WITH_IMM,
                                                      IBV_WR_RDMA_WRITE, IBV_WR_RDMA_WRITE_WITH_IMM,
                                                      IBV_WR_RDMA_READ, IBV_WR_ATOMIC_CMP_AND_SWP,
                                                      IBV_WR_ATOMIC_FETCH_AND_ADD};
    struct ibv_sge sge[MAX_SGE];
    fill_sges(sge, end, slot, op->local, op->local_count);
    const struct address *remote = &addresses[!op->poster];
    const uint64_t remote_address = remote->buffer + slot * slot_size + op->remote[0].offset;
    struct ibv_send_wr wr = {
        .wr_id = (uint64_t)slot,
        .sg_list = sge,
        .num_sge = op->local_count,
        .opcode = opcodes[op->kind],
        .send_flags = (op->is_signaled ? IBV_SEND_SIGNALED : 0) |
                      (op->is_inline && op->size <= end->max_inline ? IBV_SEND_INLINE : 0),
        .imm_data = htonl(op->immediate),
    };
    if (is_atomic(op)) {
        wr.wr.atomic.remote_addr = remote_address;
        wr.wr.atomic.rkey = remote->rkey;
        wr.wr.atomic.compare_add = op->kind == FETCH_ADD ? op->swap : op->compare;
        wr.wr.atomic.swap = op->swap;
    } else {
        wr.wr.rdma.remote_addr = remote_address;
        wr.wr.rdma.rkey = remote->rkey;
    }
    struct ibv_send_wr *bad;
    const int error = ibv_post_send(end->qp, &wr, &bad);
    NEED(error == 0, "ibv_post_send: %s", strerror(error));
}

/* ---- completions ---- */

static void check_completion(const struct ibv_wc *wc, const struct operation *batch, int side, int slot)
{
    static const enum ibv_wc_opcode opcodes[KINDS] = {IBV_WC_SEND,       IBV_WC_SEND,      IBV_WC_RDMA_WRITE,
                                                      IBV_WC_RDMA_WRITE, IBV_WC_RDMA_READ, IBV_WC_COMP_SWAP,
                                                      IBV_WC_FETCH_ADD};
    const struct operation *op = &batch[slot];
    const bool is_receive = op->poster != side;
    const char *name = kind_names[op->kind];
    NEED(wc->status == IBV_WC_SUCCESS, "%s of %u bytes: %s %s (vendor 0x%x)", name, op->size,
         is_receive ? "received with" : "completed with", ibv_wc_status_str(wc->status), wc->vendor_err);
    NEED(wc->qp_num == ends[side].qp->qp_num, "%s: completion of QP 0x%x", name, wc->qp_num);
    if (!is_receive) {
        NEED(wc->opcode == opcodes[op->kind], "%s: completion opcode %d", name, wc->opcode);
        const bool has_length = op->kind == READ || is_atomic(op);
        NEED(!has_length || wc->byte_len == op->size, "%s: byte_len %u, not %u", name, wc->byte_len, op->size);
        return;
    }
    NEED(wc->opcode == (op->kind == WRITE_IMM ? IBV_WC_RECV_RDMA_WITH_IMM : IBV_WC_RECV), "%s: receive opcode %d", name,
         wc->opcode);
    NEED(wc->byte_len == op->size, "%s: received %u bytes, not %u", name, wc->byte_len, op->size);
    const bool has_immediate = (wc->wc_flags & IBV_WC_WITH_IMM) != 0;
    NEED(has_immediate == (op->kind != SEND), "%s: wc_flags 0x%x", name, wc->wc_flags);
    NEED(!has_immediate || ntohl(wc->imm_data) == op->immediate, "%s: immediate 0x%x, not 0x%x", name,
         ntohl(wc->imm_data), op->immediate);
}

/* Stores the slots of an end's receives, or of its signaled requests, in completion order; returns their number. */
static int expected_slots(const struct operation *batch, int side, bool of_receives, int *slots)
{
    int count = 0;
    for (int i = 0; i < BATCH; i++) {
        const bool is_own = batch[i].poster == side;
        if (of_receives ? !is_own && receives(&batch[i]) : is_own && batch[i].is_signaled)
            slots[count++] = i;
    }
    return count;
}

/* The expected completions of an end. Index 0: of requests; 1: of receives. */
struct expected {
    int slots[2][BATCH];
    int count[2], done[2];
};

static void take_completions(const struct operation *batch)
{
    struct expected expected[2] = {0};
    int remaining = 0;
    for (int side = 0; side < 2; side++)
        for (int of_receives = 0; is_local[side] && of_receives < 2; of_receives++) {
            const int count = expected_slots(batch, side, of_receives, expected[side].slots[of_receives]);
            expected[side].count[of_receives] = count;
            remaining += count;
        }
    while (remaining > 0)
        for (int side = 0; side < 2; side++) {
            struct expected *own = &expected[side];
            struct ibv_wc wc;
            /* An end without work would wait forever for a completion event. */
            const bool is_idle = own->done[0] + own->done[1] == own->count[0] + own->count[1];
            if (!is_local[side] || is_idle || next_completion(&ends[side], &wc) == 0)
                continue;
            const int is_receive = wc.wr_id >= RECEIVE_ID;
            int *done = &own->done[is_receive];
            NEED(*done < own->count[is_receive], "a completion too many: wr_id %lu, %s", (unsigned long)wc.wr_id,
                 ibv_wc_status_str(wc.status));
            const int slot = (int)(wc.wr_id % RECEIVE_ID);
            const int expected_slot = own->slots[is_receive][*done];
            /* A failed operation completes even if it is unsignaled: its slot may be any of the batch. */
            const bool may_be_any = wc.status != IBV_WC_SUCCESS && slot < BATCH;
            NEED(may_be_any || slot == expected_slot, "completion of slot %d before %d", slot, expected_slot);
            ++*done;
            remaining--;
            check_completion(&wc, batch, side, slot);
        }
}

/* ---- synchronisation of the two sides ---- */

/* Waits until the other side is at the same step; both ends in one process do not wait. */
static void barrier(uint32_t step)
{
    uint32_t theirs;
    if (peer_socket < 0)
        return;
    exchange(peer_socket, &step, &theirs, sizeof step);
    NEED(theirs == step, "the other side is at step %u, this one at %u", theirs, step);
}

static void compare(const struct operation *batch, long number)
{
    for (int side = 0; side < 2; side++) {
        if (!is_local[side] || memcmp(ends[side].buffer, models[side], buffer_bytes) == 0)
            continue;
        size_t offset = 0;
        while (ends[side].buffer[offset] == models[side][offset])
            offset++;
        const int slot = (int)(offset / slot_size);
        const struct operation *op = &batch[slot];
        fail("batch %ld, end %d, slot %d, offset %zu: 0x%02x, not 0x%02x; %s of %u bytes by end %d", number, side,
             slot, offset % slot_size, ends[side].buffer[offset], models[side][offset], kind_names[op->kind], op->size,
             op->poster);
    }
}

static void run(void)
{
    struct operation batch[BATCH];
    long counts[KINDS] = {0}, done = 0;
    unsigned long bytes = 0;
    for (long number = 0; done < operations; number++) {
        int last[2] = {-1, -1};
        for (int i = 0; i < BATCH; i++) {
            random_operation(&batch[i]);
            last[batch[i].poster] = i;
            counts[batch[i].kind]++;
            bytes += batch[i].size;
            done++;
        }
        for (int side = 0; side < 2; side++) {
            /* The last operation of each end is signaled: its completion implies the earlier ones. */
            if (last[side] >= 0)
                batch[last[side]].is_signaled = true;
            fill(models[side], buffer_bytes, mix(seed ^ mix((uint64_t)number * 2 + (uint64_t)side + 1)));
            if (is_local[side])
                memcpy(ends[side].buffer, models[side], buffer_bytes);
        }
        for (int i = 0; i < BATCH; i++) {
            if (is_verbose)
                printf("%ld.%d: end %d %s %u bytes, %d to %d elements%s\n", number, i, batch[i].poster,
                       kind_names[batch[i].kind], batch[i].size, batch[i].local_count, batch[i].remote_count,
                       batch[i].is_inline ? ", inline" : "");
            apply(&batch[i], i);
            if (receives(&batch[i]) && is_local[!batch[i].poster])
                post_receive(&ends[!batch[i].poster], &batch[i], i);
        }
        barrier((uint32_t)(2 * number + 1));
        for (int i = 0; i < BATCH; i++)
            if (is_local[batch[i].poster])
                post_operation(&ends[batch[i].poster], &batch[i], i);
        take_completions(batch);
        barrier((uint32_t)(2 * number + 2));
        for (int side = 0; side < 2; side++) {
            struct ibv_wc wc;
            NEED(!is_local[side] || ibv_poll_cq(ends[side].cq, 1, &wc) == 0, "end %d: a completion too many", side);
        }
        compare(batch, number);
    }
    printf("%ld operations, %lu bytes, seed %lu:", done, bytes, (unsigned long)seed);
    for (int i = 0; i < KINDS; i++)
        printf(" %s %ld", kind_names[i], counts[i]);
    printf("; every byte is right\n");
}

/* ---- start ---- */

int main(int argc, char **argv)
{
    const char *port = "18515", *second_device = NULL;
    bool in_one_process = false;
    unsigned time_limit = 60;
    options = default_options;
    for (int c; (c = getopt(argc, argv, "d:x:g:p:m:s:n:S:t:e1v")) != -1;) {
        switch (c) {
        case 'd': options.device = optarg; break;
        case 'x': second_device = optarg; break;
        case 'g': options.gid_index = atoi(optarg); break;
        case 'p': port = optarg; break;
        case 'm': options.mtu = atoi(optarg); break;
        case 's': largest_size = strtoul(optarg, NULL, 0); break;
        case 'n': operations = atol(optarg); break;
        case 'S': seed = strtoull(optarg, NULL, 0); break;
        case 't': time_limit = (unsigned)atoi(optarg); break;
        case 'e': options.events = true; break;
        case '1': in_one_process = true; break;
        case 'v': is_verbose = true; break;
        default:
            fail("usage: %s [-d DEVICE] [-x DEVICE] [-g GID-INDEX] [-p TCP-PORT] [-m MTU] [-s LARGEST]\n"
                 "  [-n OPERATIONS] [-S SEED] [-t SECONDS] [-e] [-v] [-1 | HOST]",
                 argv[0]);
        }
    }
    NEED(largest_size >= 8 && largest_size <= 1u << 26, "largest size %zu: 8 to %u are allowed", largest_size,
         1u << 26);
    slot_size = (largest_size + MARGIN + 63) / 64 * 64;
    buffer_bytes = slot_size * BATCH;
    random_state = mix(seed);
    set_time_limit(time_limit);

    const char *host = optind < argc ? argv[optind] : NULL;
    const int own_side = host ? 1 : 0;
    for (int side = 0; side < 2; side++) {
        is_local[side] = in_one_process || side == own_side;
        models[side] = malloc(buffer_bytes);
        NEED(models[side], "no memory for %zu bytes", buffer_bytes);
        if (!is_local[side])
            continue;
        const bool shares_context = side == 1 && in_one_process && !second_device;
        struct ibv_context *context =
            shares_context ? ends[0].context : open_named(side == 1 && second_device ? second_device : options.device);
        create_endpoint(&ends[side], context, &options, buffer_bytes, (uint32_t)mix(seed + 77 + (uint64_t)side));
        addresses[side] = address_of(&ends[side]);
    }
    if (!in_one_process) {
        peer_socket = host ? connect_to_server(host, port) : accept_client(port);
        exchange(peer_socket, &addresses[own_side], &addresses[!own_side], sizeof addresses[0]);
    }
    for (int side = 0; side < 2; side++)
        if (is_local[side])
            connect_to(&ends[side], &addresses[!side], &options);
    barrier(0);
    run();
    barrier(~0u);
    for (int side = 0; side < 2; side++)
        if (is_local[side])
            destroy_endpoint(&ends[side]);
    for (int side = 1; side >= 0; side--)
        if (is_local[side] && (side == 0 || ends[1].context != ends[0].context))
            NEED(ibv_close_device(ends[side].context) == 0, "ibv_close_device: %s", strerror(errno));
    return 0;
}
