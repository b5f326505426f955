/*
 * A stream of RC operations in each direction, for links that lose packets: each block and each result of an atomic is
 * checked.
 *
 *   soak [options]        server: waits for a client on the TCP port
 *   soak [options] HOST   client
 *
 *   -d DEVICE  -g GID-INDEX  -p TCP-PORT  -m MTU  -b BYTES (each way, at least)  -s BYTES (largest block)  -S SEED
 *   -T EXPONENT (local ACK timeout, 4.096 us * 2^EXPONENT)  -R RETRIES  -t SECONDS (give up; 300)
 *
 * Each end generates the scripts of both streams from the seed. The bytes of a SEND or WRITE follow from its number, so
 * that lost, duplicated and misplaced blocks are detected.
 */
#define _GNU_SOURCE
#include <sched.h>

#include "../endpoint.h"
#include "../pattern.h"
#include "../tcp.h"

#define WINDOW 16
#define MARKER 8 /* bytes of the SEND that follows a WRITE */
#define SOURCE_BYTES 65536
#define ADDEND 3 /* of each fetch-and-add */
/* wr_id of the WRITEs that announce free slots. The wr_id of an operation is its number. */
#define ANNOUNCEMENT ~0ull

enum kind { SEND, WRITE_IMM, WRITE, READ, COMPARE_SWAP, FETCH_ADD, KINDS };
static const char *const kind_names[KINDS] = {"send", "write_imm", "write", "read", "cmp_swap", "fetch_add"};

/*
 * Offsets in the buffer. The first four areas have WINDOW slots of one block. A SEND or WRITE uses the receiver's next
 * slot of `receive` or `write`; operation i uses slot i % WINDOW of the requester's `read` or `out`.
 */
struct layout {
    size_t receive; /* target of SENDs */
    size_t write;   /* target of WRITEs */
    size_t read;    /* target of READs */
    size_t out;     /* source of SENDs and WRITEs */
    size_t results; /* old values that atomics return, 8 bytes each */
    size_t words;   /* see below */
    size_t source;  /* source of the peer's READs: SOURCE_BYTES and one block */
    size_t total;
};
/* Words of 8 bytes. */
enum {
    CREDIT,     /* how many of our SENDs and WRITEs the peer has checked; the peer WRITEs it */
    COUNTED,    /* target of the peer's fetch-and-add */
    SWAPPED,    /* target of the peer's compare-and-swap */
    CREDIT_OUT, /* source of the WRITE to the peer's CREDIT */
};

struct operation {
    enum kind kind;
    uint32_t size;   /* bytes */
    uint32_t offset; /* of READ, in the source area */
};

struct stream {
    uint64_t state;         /* of the random generator */
    uint64_t next;          /* number of the next operation */
    uint64_t bytes;         /* of all operations before `next` */
    uint64_t counts[KINDS]; /* of all operations before `next` */
};

static struct options options;
static struct endpoint end;
static struct address own_address, peer_address;
static struct layout areas;
static int peer_socket;
static size_t largest_block = 65536, slot_size;
static uint64_t min_bytes = 1 << 20; /* of each stream */
static uint64_t seed = 1;
static uint64_t my_key, their_key;

static uint64_t next_random(struct stream *s)
{
    return mix(s->state += 0x9e3779b97f4a7c15u);
}

/* Ends the program unless the bytes are those of `key` from offset `skip` on. */
static void expect_bytes(const char *kind_name, uint64_t number, const uint8_t *bytes, size_t length, uint64_t key,
                         size_t skip)
{
    for (size_t i = 0; i < length; i += 8) {
        const uint64_t word = word_of(key, skip + i);
        if (memcmp(bytes + i, &word, length - i < 8 ? length - i : 8) != 0)
            fail("operation %lu, %s of %zu bytes: wrong at offset %zu", (unsigned long)number, kind_name, length, i);
    }
}

/* The key of operation `number` of the stream with this key. */
static uint64_t key_of(uint64_t key, uint64_t number)
{
    return mix(key ^ mix(number + 1));
}

static struct operation advance(struct stream *s)
{
    struct operation op;
    const uint64_t random = next_random(s);
    static const enum kind frequencies[16] = {SEND, SEND,  SEND, SEND, WRITE_IMM, WRITE_IMM,    WRITE_IMM, WRITE,
                                        READ, WRITE, READ, READ, READ,      COMPARE_SWAP, FETCH_ADD, FETCH_ADD};
    /* Bits of `random`: 0 to 3 choose the kind, 4 the largest size, 8 on another size, 40 on the offset. */
    op.kind = frequencies[random & 15];
    op.size = (uint32_t)(random & 16 ? largest_block : (random >> 8) % (largest_block + 1));
    op.offset = (uint32_t)(random >> 40) & (SOURCE_BYTES - 8); /* a multiple of 8 */
    if (op.kind >= COMPARE_SWAP)
        op.size = 8;
    s->bytes += op.size;
    s->counts[op.kind]++;
    s->next++;
    return op;
}

static bool uses_slot(enum kind kind)
{
    return kind <= WRITE;
}

/* ---- posting ---- */

static void post_receive(uint64_t slot_number)
{
    const size_t offset = areas.receive + slot_number % WINDOW * slot_size;
    struct ibv_sge sge = {(uintptr_t)end.buffer + offset, (uint32_t)largest_block, end.mr->lkey};
    struct ibv_recv_wr *bad, wr = {.wr_id = slot_number, .sg_list = &sge, .num_sge = 1};
    const int error = ibv_post_recv(end.qp, &wr, &bad);
    NEED(error == 0, "ibv_post_recv: %s", strerror(error));
}

struct request {
    enum ibv_wr_opcode opcode;
    uint64_t id;
    size_t local; /* offset in this end's buffer */
    uint32_t length;
    size_t remote; /* offset in the peer's buffer */
    uint32_t immediate;
    uint64_t compare_add, swap;
    bool is_unsignaled;
};

static void post_request(struct request r)
{
    struct ibv_sge sge = {(uintptr_t)end.buffer + r.local, r.length, end.mr->lkey};
    struct ibv_send_wr *bad, wr = {.wr_id = r.id,
                                   .sg_list = &sge,
                                   .num_sge = r.length ? 1 : 0,
                                   .opcode = r.opcode,
                                   .send_flags = r.is_unsignaled ? 0 : IBV_SEND_SIGNALED,
                                   .imm_data = htonl(r.immediate)};
    if (r.opcode == IBV_WR_ATOMIC_CMP_AND_SWP || r.opcode == IBV_WR_ATOMIC_FETCH_AND_ADD) {
        wr.wr.atomic.remote_addr = peer_address.buffer + r.remote;
        wr.wr.atomic.rkey = peer_address.rkey;
        wr.wr.atomic.compare_add = r.compare_add;
        wr.wr.atomic.swap = r.swap;
    } else {
        wr.wr.rdma.remote_addr = peer_address.buffer + r.remote;
        wr.wr.rdma.rkey = peer_address.rkey;
    }
    const int error = ibv_post_send(end.qp, &wr, &bad);
    NEED(error == 0, "ibv_post_send: %s", strerror(error));
}

/* The value of the word SWAPPED after `count` swaps. */
static uint64_t swap_value(uint64_t key, uint64_t count)
{
    return count ? key_of(key, count) : 0;
}

/* Posts the next operation. `slot_number`: how many of the receiver's slots have been used. */
static enum kind post_operation(struct stream *mine, uint64_t slot_number)
{
    const uint64_t number = mine->next;
    const struct operation op = advance(mine);
    const uint64_t swaps = mine->counts[COMPARE_SWAP];
    const size_t slot = number % WINDOW * slot_size, remote_slot = slot_number % WINDOW * slot_size;
    const size_t out = areas.out + slot, result = areas.results + number % WINDOW * 8;
    const size_t target = areas.write + remote_slot;
    const uint32_t immediate = (uint32_t)number;
    if (uses_slot(op.kind))
        fill(end.buffer + out, op.size, key_of(my_key, number));
    switch (op.kind) {
    case SEND:
        post_request((struct request){IBV_WR_SEND_WITH_IMM, number, out, op.size, .immediate = immediate});
        break;
    case WRITE_IMM:
        post_request((struct request){IBV_WR_RDMA_WRITE_WITH_IMM, number, out, op.size, .remote = target,
                                      .immediate = immediate});
        break;
    case WRITE:
        post_request((struct request){IBV_WR_RDMA_WRITE, number, out, op.size, .remote = target,
                                      .is_unsignaled = true});
        post_request((struct request){IBV_WR_SEND_WITH_IMM, number, areas.out, MARKER, .immediate = immediate});
        break;
    case READ:
        post_request((struct request){IBV_WR_RDMA_READ, number, areas.read + slot, op.size,
                                      .remote = areas.source + op.offset});
        break;
    case COMPARE_SWAP:
        post_request((struct request){IBV_WR_ATOMIC_CMP_AND_SWP, number, result, 8,
                                      .remote = areas.words + 8 * SWAPPED, .compare_add = swap_value(my_key, swaps - 1),
                                      .swap = swap_value(my_key, swaps)});
        break;
    default:
        post_request((struct request){IBV_WR_ATOMIC_FETCH_AND_ADD, number, result, 8,
                                      .remote = areas.words + 8 * COUNTED, .compare_add = ADDEND});
    }
    return op.kind;
}

/* ---- checking ---- */

/* Checks the completion of this end's next operation. */
static void check_done(struct stream *done, const struct ibv_wc *wc)
{
    const uint64_t number = done->next;
    const struct operation op = advance(done);
    uint64_t old, expected;
    NEED(wc->wr_id == number, "completion of %lu, not %lu", (unsigned long)wc->wr_id, (unsigned long)number);
    if (op.kind == READ)
        expect_bytes("READ", number, end.buffer + areas.read + number % WINDOW * slot_size, op.size, their_key,
                     op.offset);
    if (op.kind < COMPARE_SWAP)
        return;
    memcpy(&old, end.buffer + areas.results + number % WINDOW * 8, 8);
    if (op.kind == COMPARE_SWAP)
        expected = swap_value(my_key, done->counts[COMPARE_SWAP] - 1);
    else
        expected = ADDEND * (done->counts[FETCH_ADD] - 1);
    NEED(old == expected, "operation %lu, %s: old value %lx, not %lx", (unsigned long)number, kind_names[op.kind],
         (unsigned long)old, (unsigned long)expected);
}

/* Checks the arrival of the peer's next SEND or WRITE. */
static void check_received(struct stream *theirs, uint64_t slot_number, const struct ibv_wc *wc)
{
    uint64_t number;
    struct operation op;
    do {
        number = theirs->next;
        op = advance(theirs);
    } while (!uses_slot(op.kind));
    const uint32_t size = op.kind == WRITE ? MARKER : op.size;
    const bool is_send = op.kind != WRITE_IMM;
    const enum ibv_wc_opcode opcode = is_send ? IBV_WC_RECV : IBV_WC_RECV_RDMA_WITH_IMM;
    NEED(wc->wr_id == slot_number && ntohl(wc->imm_data) == (uint32_t)number && wc->byte_len == size &&
             wc->opcode == opcode,
         "operation %lu, %s of %u bytes: received as %u, %u bytes, opcode %d, into %lu, not %lu", (unsigned long)number,
         kind_names[op.kind], size, ntohl(wc->imm_data), wc->byte_len, wc->opcode, (unsigned long)wc->wr_id,
         (unsigned long)slot_number);
    const size_t area = op.kind == SEND ? areas.receive : areas.write;
    expect_bytes(kind_names[op.kind], number, end.buffer + area + slot_number % WINDOW * slot_size, op.size,
                 key_of(their_key, number), 0);
}

static uint64_t shared_word(int index)
{
    return __atomic_load_n((uint64_t *)(end.buffer + areas.words) + index, __ATOMIC_ACQUIRE);
}

/* Tells the peer how many of its SENDs and WRITEs have been checked. */
static void announce_slots(uint64_t received)
{
    __atomic_store_n((uint64_t *)(end.buffer + areas.words) + CREDIT_OUT, received, __ATOMIC_RELEASE);
    post_request((struct request){IBV_WR_RDMA_WRITE, ANNOUNCEMENT, areas.words + 8 * CREDIT_OUT, 8,
                                  .remote = areas.words + 8 * CREDIT});
}

/* Returns the number of operations of a script, and stores that of its SENDs and WRITEs in `slots`. */
static uint64_t length_of(uint64_t key, uint64_t *slots)
{
    struct stream s = {.state = key};
    *slots = 0;
    while (s.bytes < min_bytes)
        *slots += uses_slot(advance(&s).kind);
    return s.next;
}

static void synchronise(void)
{
    const uint32_t ready = 1;
    uint32_t theirs;
    exchange(peer_socket, &ready, &theirs, sizeof ready);
}

static void run(void)
{
    struct stream posted = {.state = my_key}, done = {.state = my_key}, theirs = {.state = their_key};
    uint64_t slots, their_slots, slots_taken = 0, received = 0, announced = 0;
    const uint64_t total = length_of(my_key, &slots);
    bool is_announcing = false;
    length_of(their_key, &their_slots);
    /* The peer may wait for the last announcement, although it has no more blocks to send. */
    while (done.next < total || received < their_slots || announced < received || is_announcing) {
        /* A free slot of the receiver is required even for operations that do not use one. */
        while (posted.next < total && posted.next - done.next < WINDOW && slots_taken - shared_word(CREDIT) < WINDOW)
            slots_taken += uses_slot(post_operation(&posted, slots_taken));
        struct ibv_wc wc;
        const int found = ibv_poll_cq(end.cq, 1, &wc);
        NEED(found >= 0, "ibv_poll_cq: %d", found);
        if (found == 0) {
            if (received > announced && !is_announcing) {
                announced = received;
                is_announcing = true;
                announce_slots(received);
            } else {
                sched_yield();
            }
            continue;
        }
        NEED(wc.status == IBV_WC_SUCCESS, "after %lu of %lu operations, %lu of %lu blocks received: %s",
             (unsigned long)done.next, (unsigned long)total, (unsigned long)received, (unsigned long)their_slots,
             ibv_wc_status_str(wc.status));
        if (wc.opcode & IBV_WC_RECV) {
            check_received(&theirs, received, &wc);
            post_receive(received + WINDOW);
            received++;
        } else if (wc.wr_id == ANNOUNCEMENT) {
            is_announcing = false;
        } else {
            check_done(&done, &wc);
        }
    }
    synchronise();
    struct stream all = {.state = their_key};
    while (all.bytes < min_bytes)
        advance(&all);
    NEED(shared_word(COUNTED) == ADDEND * all.counts[FETCH_ADD], "the other end counted to %lu, not %lu",
         (unsigned long)shared_word(COUNTED), (unsigned long)(ADDEND * all.counts[FETCH_ADD]));
    NEED(shared_word(SWAPPED) == swap_value(their_key, all.counts[COMPARE_SWAP]), "the last swapped value is wrong");
    printf("%lu bytes there, %lu back, seed %lu:", (unsigned long)done.bytes, (unsigned long)all.bytes,
           (unsigned long)seed);
    for (int i = 0; i < KINDS; i++)
        printf(" %s %lu", kind_names[i], (unsigned long)(done.counts[i] + all.counts[i]));
    printf("; every byte is right\n");
}

/* ---- start ---- */

static void lay_out(void)
{
    const size_t area = slot_size * WINDOW;
    areas.receive = 0;
    areas.write = areas.receive + area;
    areas.read = areas.write + area;
    areas.out = areas.read + area;
    areas.results = areas.out + area;
    areas.words = areas.results + 8 * WINDOW;
    areas.source = areas.words + 64; /* the words, rounded up */
    areas.total = areas.source + SOURCE_BYTES + slot_size;
}

int main(int argc, char **argv)
{
    const char *port = "18515";
    unsigned time_limit = 300;
    options = default_options;
    options.timeout = 18; /* 1.1 s */
    for (int c; (c = getopt(argc, argv, "d:g:p:m:b:s:S:T:R:t:")) != -1;) {
        switch (c) {
        case 'd': options.device = optarg; break;
        case 'g': options.gid_index = atoi(optarg); break;
        case 'p': port = optarg; break;
        case 'm': options.mtu = atoi(optarg); break;
        case 'b': min_bytes = strtoull(optarg, NULL, 0); break;
        case 's': largest_block = strtoul(optarg, NULL, 0); break;
        case 'S': seed = strtoull(optarg, NULL, 0); break;
        case 'T': options.timeout = (uint8_t)atoi(optarg); break;
        case 'R': options.retry_count = (uint8_t)atoi(optarg); break;
        case 't': time_limit = (unsigned)atoi(optarg); break;
        default:
            fail("usage: %s [-d DEVICE] [-g GID-INDEX] [-p TCP-PORT] [-m MTU] [-b BYTES] [-s LARGEST] [-S SEED]\n"
                 "  [-T TIMEOUT-EXPONENT] [-R RETRIES] [-t SECONDS] [HOST]",
                 argv[0]);
        }
    }
    NEED(largest_block >= MARKER && largest_block <= 1u << 22, "largest block %zu: %d to %u are allowed", largest_block,
         MARKER, 1u << 22);
    slot_size = (largest_block + 63) / 64 * 64;
    lay_out();
    set_time_limit(time_limit);

    const char *host = optind < argc ? argv[optind] : NULL;
    my_key = mix(seed + (host ? 1 : 2));
    their_key = mix(seed + (host ? 2 : 1));
    create_endpoint(&end, open_named(options.device), &options, areas.total, (uint32_t)mix(my_key));
    fill(end.buffer + areas.source, SOURCE_BYTES + slot_size, my_key);
    own_address = address_of(&end);
    peer_socket = host ? connect_to_server(host, port) : accept_client(port);
    exchange(peer_socket, &own_address, &peer_address, sizeof own_address);
    for (int i = 0; i < WINDOW; i++)
        post_receive((uint64_t)i);
    connect_to(&end, &peer_address, &options);
    synchronise();
    run();
    synchronise();
    struct ibv_context *context = end.context;
    destroy_endpoint(&end);
    NEED(ibv_close_device(context) == 0, "ibv_close_device: %s", strerror(errno));
    return 0;
}
