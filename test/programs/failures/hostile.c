/*
 * A hostile client: random and mutated calls, wild pointers and handles, garbage in its mapped rings.
 *
 *   hostile [-S SEED] [-n CALLS] [-d DEVICE] [-k]
 *
 *   -k  ends by SIGKILL after half of the calls
 *
 * libibverbs sets up objects; its ioctls are recorded (by this file's ioctl), and repeated with changed fields. Between
 * them come random calls, doorbells, and random bytes in the rings. None of this may end this program or harm the
 * daemon: at the end a new context must work. Pointers in the calls point to a scratch area or to memory that is
 * inaccessible or read-only, or are random, so that the daemon's responses hardly ever overwrite anything else.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "../endpoint.h"

#define VERBS_IOCTL 0xc0181b01u /* Linux's RDMA_VERBS_IOCTL */
#define SCRATCH_BYTES 65536
#define RINGS_BYTES (1u << 20) /* of the start of the context file, where its rings are */
#define TEMPLATES 96           /* recorded calls */
#define ATTRIBUTES 24          /* of a call */
#define CONTENT 512            /* bytes that an attribute points to */
#define CALLS_PER_CONTEXT 2000
#define DRIVER_RXE 14         /* RDMA_DRIVER_RXE */
#define DRIVER_NAMESPACE 4096 /* number of the first attribute of drivers */
#define EXTENDED 0x80000000u  /* IB_USER_VERBS_CMD_FLAG_EXTENDED */
#define POST_SEND 28          /* IB_USER_VERBS_CMD_POST_SEND */

/* Linux's struct ib_uverbs_ioctl_hdr and struct ib_uverbs_attr. */
struct ioctl_header {
    uint16_t length, object, method, count;
    uint64_t reserved1;
    uint32_t driver, reserved2;
};
struct ioctl_attribute {
    uint16_t id, length, flags, element;
    uint64_t data;
};
struct message {
    struct ioctl_header header;
    struct ioctl_attribute attributes[ATTRIBUTES];
};

static struct template {
    struct message message;
    uint8_t content[ATTRIBUTES][CONTENT]; /* what the attributes point to */
} templates[TEMPLATES];
static unsigned template_count;
static bool is_recording;

static uint8_t *scratch, *read_only, *inaccessible;
static uint32_t *rings;
static int device; /* 0: none yet */
static uint32_t keys[2];
static uint32_t qp_handles[2];
/* Number of calls by errno; 0: success. */
static unsigned long outcomes[256];

/* ---- pseudo-random ---- */

static uint64_t random_state;

/* splitmix64 */
static uint64_t random64(void)
{
    uint64_t x = random_state += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

static uint32_t below(uint32_t limit)
{
    return (uint32_t)(random64() % limit);
}

static bool one_in(uint32_t n)
{
    return below(n) == 0;
}

static uint64_t random_pointer(void)
{
    switch (below(12)) {
    case 0: return 0;
    case 1: return below(8192);
    case 2: return (uintptr_t)inaccessible + below(4096);
    case 3: return (uintptr_t)inaccessible - 1 - below(32); /* crosses from scratch into the inaccessible page */
    case 4: return (uintptr_t)read_only + below(64);
    case 5: return random64();
    case 6: return 0xffffffffffff0000u + below(65536);
    default: return (uintptr_t)scratch + below(SCRATCH_BYTES / 2);
    }
}

static uint64_t random_number(void)
{
    static const uint64_t limits[] = {0, 1, 2, 7, 8, 0x7f, 0xff, 0x7fff, 0xffff, 0x7fffffff, 0x80000000u, 0xffffffffu,
                                     1ull << 32, 1ull << 40, 1ull << 63, ~0ull};
    switch (below(7)) {
    case 0: return limits[below(sizeof limits / sizeof limits[0])];
    case 1: return below(16);
    case 2: return keys[below(2)];
    case 3: return qp_handles[below(2)];
    case 4: return random_pointer();
    case 5: return below(4096);
    default: return random64() >> below(64);
    }
}

static void random_bytes(uint8_t *bytes, size_t length)
{
    for (size_t i = 0; i < length; i += 8) {
        const uint64_t word = one_in(3) ? random64() : random_number();
        memcpy(bytes + i, &word, length - i < 8 ? length - i : 8);
    }
}

/* ---- recording ---- */

static bool is_pointer(uint64_t value)
{
    return value > 1ull << 32 && value < 1ull << 47;
}

static void record(const struct message *message)
{
    if (template_count == TEMPLATES || message->header.count > ATTRIBUTES)
        return;
    struct template *template = &templates[template_count++];
    memcpy(&template->message, message, message->header.length);
    for (int i = 0; i < message->header.count; i++) {
        const struct ioctl_attribute *attribute = &message->attributes[i];
        if (is_pointer(attribute->data) && attribute->length > 0)
            memcpy(template->content[i], (void *)(uintptr_t)attribute->data,
                   attribute->length < CONTENT ? attribute->length : CONTENT);
    }
}

/* Called instead of the shim's ioctl. */
int ioctl(int fd, unsigned long request, ...)
{
    static int (*next)(int, unsigned long, ...);
    va_list arguments;
    va_start(arguments, request);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    if (!next)
        next = (int (*)(int, unsigned long, ...))dlsym(RTLD_NEXT, "ioctl");
    if (is_recording && (uint32_t)request == VERBS_IOCTL)
        record(argument);
    return next(fd, request, argument);
}

/* ---- calls ---- */

static void count_outcome(long result)
{
    outcomes[result >= 0 ? 0 : errno < 256 ? errno : 255]++;
}

/*
 * Copies a template to scratch; all pointers then point into scratch. Queue pairs that execute garbage may write to
 * scratch at any time: this program reads each value that bounds its accesses once.
 */
static struct message *copy_template(const struct template *template)
{
    struct message *message = (struct message *)scratch;
    *message = template->message;
    uint8_t *next = scratch + 4096;
    for (int i = 0; i < template->message.header.count; i++) {
        struct ioctl_attribute *attribute = &message->attributes[i];
        if (!is_pointer(template->message.attributes[i].data))
            continue;
        memcpy(next, template->content[i], CONTENT);
        /* Pointers in the content: to a memory region or a response. */
        for (int word = 0; word + 8 <= CONTENT; word += 8) {
            uint64_t value;
            memcpy(&value, next + word, 8);
            if (is_pointer(value)) {
                value = (uintptr_t)scratch + SCRATCH_BYTES / 2;
                memcpy(next + word, &value, 8);
            }
        }
        attribute->data = (uintptr_t)next;
        next += CONTENT;
    }
    return message;
}

/* Changes one field of the message, or of the memory of an attribute. */
static void mutate(struct message *message)
{
    const uint16_t count = *(volatile uint16_t *)&message->header.count;
    struct ioctl_attribute *attribute = &message->attributes[below(count == 0 || count > ATTRIBUTES ? 1 : count)];
    const uint64_t data = *(volatile uint64_t *)&attribute->data;
    const uint16_t length = *(volatile uint16_t *)&attribute->length;
    switch (below(28)) {
    case 0: message->header.object = (uint16_t)random_number(); break;
    case 1: message->header.method = (uint16_t)below(10); break;
    case 2: message->header.length = (uint16_t)random_number(); break;
    case 3: message->header.count = (uint16_t)below(ATTRIBUTES + 3); break;
    case 4: message->header.driver = (uint32_t)random_number(); break;
    case 5: message->header.reserved1 = random_number(); break;
    case 6: attribute->id = (uint16_t)(one_in(2) ? below(20) : DRIVER_NAMESPACE + below(3)); break;
    case 7: attribute->length = (uint16_t)random_number(); break;
    case 8: attribute->flags = (uint16_t)random_number(); break;
    case 9: case 10: case 11: attribute->data = random_number(); break;
    case 12: case 13: attribute->data = random_pointer(); break;
    default:
        if (is_pointer(data) && (uint8_t *)(uintptr_t)data >= scratch &&
            (uint8_t *)(uintptr_t)data < scratch + SCRATCH_BYTES - CONTENT) {
            const uint64_t value = random_number();
            memcpy((uint8_t *)(uintptr_t)data + below(length ? length : 1) % CONTENT, &value, 1u << below(4));
        }
    }
}

static void mutated_ioctl(void)
{
    struct message *message = copy_template(&templates[below(template_count)]);
    for (uint32_t i = below(4); i > 0; i--)
        mutate(message);
    count_outcome(ioctl(device, VERBS_IOCTL, one_in(50) ? (void *)(uintptr_t)random_pointer() : message));
}

static void random_ioctl(void)
{
    struct message *message = (struct message *)scratch;
    random_bytes(scratch, sizeof *message);
    const uint16_t count = (uint16_t)below(ATTRIBUTES);
    message->header = (struct ioctl_header){.object = (uint16_t)below(20),
                                            .method = (uint16_t)below(8),
                                            .count = count,
                                            .driver = DRIVER_RXE};
    message->header.length = (uint16_t)(sizeof message->header + count * sizeof message->attributes[0]);
    for (int i = 0; i < count; i++)
        message->attributes[i] = (struct ioctl_attribute){
            (uint16_t)(one_in(4) ? DRIVER_NAMESPACE + below(2) : below(16)), (uint16_t)(one_in(2) ? below(64) : 8),
            (uint16_t)below(3), 0, one_in(2) ? random_pointer() : random_number()};
    count_outcome(ioctl(device, VERBS_IOCTL, message));
}

/* Ioctls of the object dialect have the letter 0xdb. */
static void random_object_call(void)
{
    enum { FIRST_OUTPUT = 64 }; /* id of the first output attribute */
    struct {
        uint16_t length, class;
        uint32_t object, op_ctrl, flags;
    } header = {.class = (uint16_t)(one_in(8) ? random64() : below(18)),
                .object = one_in(2) ? 0 : (uint32_t)random_number()};
    uint16_t end = sizeof header;
    for (uint32_t i = below(6); i > 0; i--) {
        const uint16_t payload = (uint16_t)(one_in(3) ? below(80) : 4u << below(3));
        const uint16_t id = (uint16_t)(one_in(3) ? FIRST_OUTPUT + below(4) : 1 + below(8));
        const uint16_t length_and_id[2] = {(uint16_t)(8 + payload), id};
        const uint32_t flags = one_in(10) ? (uint32_t)random64() : below(16);
        random_bytes(scratch + end + 8, payload);
        memcpy(scratch + end, length_and_id, 4);
        memcpy(scratch + end + 4, &flags, 4);
        end += 8 + (payload + 7) / 8 * 8;
    }
    header.length = one_in(10) ? (uint16_t)random_number() : end;
    memcpy(scratch, &header, sizeof header);
    count_outcome(ioctl(device, _IOWR(0xdb, one_in(4) ? below(256) : below(6), uint64_t),
               one_in(30) ? (void *)(uintptr_t)random_pointer() : scratch));
}

static void random_write(void)
{
    static const uint32_t lengths[] = {0, 1, 4, 7, 8, 12, 16, 24, 31, 33, 40, 48, 64, 120, 4096};
    const uint32_t length = lengths[below(sizeof lengths / sizeof lengths[0])];
    random_bytes(scratch, 4096);
    const uint32_t command = (one_in(8) ? EXTENDED : 0) | below(40);
    /* Of the command and of its response, in words of 4 bytes. */
    const uint16_t lengths_in_words[2] = {(uint16_t)(one_in(3) ? random_number() : length / 4),
                                          (uint16_t)(one_in(3) ? random_number() : below(64))};
    const uint64_t response = random_pointer();
    memcpy(scratch, &command, 4);
    memcpy(scratch + 4, lengths_in_words, 4);
    memcpy(scratch + 8, &response, 8);
    count_outcome(write(device, one_in(20) ? (void *)(uintptr_t)random_pointer() : scratch, length));
}

static void doorbell(void)
{
    const uint64_t response = (uintptr_t)scratch;
    /* struct ib_uverbs_cmd_hdr (in_words 8, out_words 1); response, handle, counts, WQE size of ib_uverbs_post_send. */
    const uint32_t handle = one_in(3) ? (uint32_t)random_number() : qp_handles[below(2)];
    uint32_t command[8] = {POST_SEND, 8 | 1 << 16, 0, 0, handle, 0, 0, 128};
    memcpy(&command[2], &response, 8);
    if (one_in(10)) {
        /* Work requests in the command itself. */
        command[1] = below(200) | 1 << 16;
        command[5] = (uint32_t)random_number();
        command[6] = (uint32_t)random_number();
        command[7] = (uint32_t)random_number();
    }
    count_outcome(write(device, command, sizeof command));
}

/* Writes random numbers into the rings. Each page but the unused first is treated as a struct rxe_queue_buf. */
static void corrupt_rings(void)
{
    for (uint32_t i = 1 + below(16); i > 0; i--) {
        const uint32_t page = 1 + below(one_in(4) ? RINGS_BYTES / 4096 - 1 : 24);
        uint32_t *ring = rings + page * 1024;
        switch (below(4)) {
        case 0: ring[32] = (uint32_t)random_number(); break; /* producer_index */
        case 1: ring[64] = (uint32_t)random_number(); break; /* consumer_index */
        case 2: ring[below(2)] = (uint32_t)random_number(); break; /* log2_elem_size, index_mask */
        default: random_bytes((uint8_t *)(ring + 96 + below(900)), 8 * (1 + below(3)));
        }
    }
}

/* Requests near those of verbs (letter 0x1b) and objects, TCGETS, FIONREAD. */
static void random_request(void)
{
    static const unsigned long requests[] = {0x1b00, 0x1b02,     0xc0181b02, 0x5401,
                                             0xdb00, 0x4008db00, 0x541b,     0xc0181b03};
    count_outcome(ioctl(device, one_in(3) ? 0x1b00 | (random64() & 0xffff00ff) : requests[below(8)],
                        (void *)(uintptr_t)random_pointer()));
}

/* ---- a context to attack ---- */

static struct options options;

static void set_up(void)
{
    static struct endpoint ends[2];
    struct ibv_context *context = open_named(options.device);
    for (int i = 0; i < 2; i++)
        create_endpoint(&ends[i], context, &options, SCRATCH_BYTES, (uint32_t)random64());
    for (int i = 0; i < 2; i++) {
        const struct address peer = address_of(&ends[!i]);
        struct ibv_qp_attr attr;
        struct ibv_qp_init_attr init;
        connect_to(&ends[i], &peer, &options);
        NEED(ibv_query_qp(ends[i].qp, &attr, IBV_QP_STATE, &init) == 0, "ibv_query_qp: %s", strerror(errno));
        NEED(ibv_req_notify_cq(ends[i].cq, 0) == 0, "ibv_req_notify_cq: %s", strerror(errno));
        keys[i] = ends[i].mr->rkey;
        qp_handles[i] = ends[i].qp->handle;
    }
    struct ibv_pd *pd = ibv_alloc_pd(context);
    NEED(pd && ibv_dealloc_pd(pd) == 0, "ibv_alloc_pd: %s", strerror(errno));
    device = context->cmd_fd;
    rings = mmap(NULL, RINGS_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, device, 0);
    NEED(rings != MAP_FAILED, "mmap: %s", strerror(errno));
}

int main(int argc, char **argv)
{
    long calls = 10000;
    bool kills_itself = false;
    uint64_t seed = 1;
    options = default_options;
    options.events = true;
    for (int c; (c = getopt(argc, argv, "S:n:d:k")) != -1;) {
        switch (c) {
        case 'S': seed = strtoull(optarg, NULL, 0); break;
        case 'n': calls = atol(optarg); break;
        case 'd': options.device = optarg; break;
        case 'k': kills_itself = true; break;
        default: fail("usage: %s [-S SEED] [-n CALLS] [-d DEVICE] [-k]", argv[0]);
        }
    }
    random_state = seed;
    const int read_write = PROT_READ | PROT_WRITE, flags = MAP_PRIVATE | MAP_ANONYMOUS;
    scratch = mmap(NULL, SCRATCH_BYTES + 4096, read_write, flags, -1, 0);
    read_only = mmap(NULL, 4096, PROT_READ, flags, -1, 0);
    NEED(scratch != MAP_FAILED && read_only != MAP_FAILED, "mmap: %s", strerror(errno));
    inaccessible = scratch + SCRATCH_BYTES;
    mprotect(inaccessible, 4096, PROT_NONE);

    is_recording = true;
    const int first_free = dup(0);
    close(first_free);
    for (long i = 0; i < calls; i++) {
        if (i % CALLS_PER_CONTEXT == 0) {
            /* The objects and rings of the last context may be in any state. */
            if (device)
                close_range((unsigned)first_free, ~0u, 0);
            set_up();
            is_recording = false;
        }
        switch (below(12)) {
        case 0: case 1: random_ioctl(); break;
        case 2: case 3: random_object_call(); break;
        case 4: random_write(); break;
        case 5: random_request(); break;
        case 6: corrupt_rings(); doorbell(); break;
        case 7: doorbell(); break;
        default: mutated_ioctl();
        }
        if (kills_itself && i == calls / 2)
            kill(getpid(), SIGKILL);
    }
    close_range((unsigned)first_free, ~0u, 0);

    set_up();
    printf("%ld calls, seed %lu:", calls, (unsigned long)seed);
    for (int i = 0; i < 256; i++)
        if (outcomes[i])
            printf(" %s %lu", i ? strerrorname_np(i) : "done", outcomes[i]);
    printf("\n");
    NEED(outcomes[EIO] == 0, "%lu calls ended with EIO: did the daemon die?", outcomes[EIO]);
    return 0;
}
