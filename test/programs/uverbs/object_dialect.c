/*
 * The object dialect from C (src/uapi/object/dialect.ts), without any RDMA library. A call is
 * ioctl(fd, _IOWR(0xdb, METHOD, u64), message); the message is a header and attributes, and the answer overwrites it.
 *
 *   object_dialect [NODE]          NODE: default /dev/infiniband/uverbs0
 *
 * The first wrong answer is printed, and the exit status is 1.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Classes, methods and attributes, with the numbers that `userdma schema` prints. */
enum class {
    DEVICE = 2,
    PD = 4,
    CQ = 5,
    MR = 6,
    COMP_CHANNEL = 7,
    RC_QP = 16,
    EVENT_QUEUE = 30,
    SYSTEM = 31,
};
enum method {
    CREATE = 0,
    QUERY = 1,
    MODIFY = 2,
    DESTROY = 3,
    CREATE_FD = 4,
    DEVICE_OPEN = 32,
    REQ_NOTIFY = 64,
    GET_EVENT = 32,
    ATTACH = 32,
    GET_EVENTS = 34,
};
/* Attributes: CLASS_METHOD_NAME. The numbers of outputs begin at 64. */
enum {
    DEVICE_OPEN_NUM_COMP_VECTORS = 64,
    DEVICE_OPEN_CORE_SUPPORT = 65,
    DEVICE_QUERY_ATTRIBUTES = 64,

    MR_CREATE_PD = 1,
    MR_CREATE_START = 2,
    MR_CREATE_LENGTH = 3,
    MR_CREATE_IOVA = 4,
    MR_CREATE_ACCESS = 5,
    MR_CREATE_LKEY = 64,
    MR_CREATE_RKEY = 65,
    MR_QUERY_LENGTH = 66,

    CQ_CREATE_CQE = 1,
    CQ_CREATE_USER_HANDLE = 2,
    CQ_CREATE_CHANNEL = 3,
    CQ_CREATE_COMP_VECTOR = 4,
    CQ_CREATE_ACTUAL_CQE = 64,
    CQ_REQ_NOTIFY_SOLICITED_ONLY = 1,
    CQ_DESTROY_COMP_EVENTS = 64, /* that the program has read */

    QP_CREATE_PD = 1,
    QP_CREATE_SEND_CQ = 2,
    QP_CREATE_RECV_CQ = 3,
    QP_CREATE_CAP = 4,
    QP_CREATE_USER_HANDLE = 6,
    QP_MODIFY_STATE = 1,

    COMP_CHANNEL_GET_EVENT_USER_HANDLE = 64,
    EVENT_QUEUE_ATTACH_COOKIE = 1,
    EVENT_QUEUE_ATTACH_CQ = 0x100 + CQ,
    EVENT_QUEUE_GET_EVENTS_MAX = 1,
    EVENT_QUEUE_GET_EVENTS_EVENTS = 64,

    SYSTEM_QUERY_DEVICES = 64,

    NO_ATTRIBUTE = 77,
    /* An output of CREATE of a CQ or queue pair: Linux's struct mminfo of the CQ's or the receive ring. */
    RXE_RING = 0x8000,
};
/* Flags of attributes. Upper 16 bits of an output's flags: bytes written, or after ENOSPC, bytes needed. */
enum flag { MANDATORY = 1, OUT = 2, FILLED = 4, INDIRECT = 8 };
/* A flag of an answer's header. */
enum { ANSWERED = 1 };

struct header {
    uint16_t length, class;
    uint32_t object, op_ctrl, flags;
};
struct attribute {
    uint16_t length, id;
    uint32_t flags;
};
_Static_assert(sizeof(struct header) == 16 && sizeof(struct attribute) == 8, "layout of the dialect");

/* Linux's struct mminfo. */
struct mminfo {
    uint64_t offset;
    uint32_t size, reserved;
};
/* Words of a ring: Linux's struct rxe_queue_buf. */
enum { LOG2_ELEM_SIZE = 0, INDEX_MASK = 1, PRODUCER_INDEX = 32, CONSUMER_INDEX = 64 };

static int device;

static union {
    struct header header;
    uint8_t bytes[1024];
} message;

#define EXPECT(condition)                                                                                              \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            printf("line %d: false: %s (errno %d %s)\n", __LINE__, #condition, errno, strerror(errno));               \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)
#define REFUSED(result, error) EXPECT((result) == -1 && errno == (error))

static void begin(enum class class, uint32_t object)
{
    memset(&message, 0, sizeof message);
    message.header = (struct header){.length = sizeof message.header, .class = class, .object = object};
}

/* Adds an attribute of `length` bytes; returns its payload. */
static void *add(uint16_t id, uint32_t flags, const void *payload, uint16_t length)
{
    struct attribute *attribute = (void *)(message.bytes + message.header.length);
    *attribute = (struct attribute){.length = (uint16_t)(sizeof *attribute + length), .id = id, .flags = flags};
    if (payload)
        memcpy(attribute + 1, payload, length);
    message.header.length += sizeof *attribute + (length + 7) / 8 * 8;
    return attribute + 1;
}

static void add_u32(uint16_t id, uint32_t value)
{
    add(id, MANDATORY, &value, sizeof value);
}

static void add_u64(uint16_t id, uint64_t value)
{
    add(id, MANDATORY, &value, sizeof value);
}

/* Adds an output of at most `size` bytes; returns its payload. */
static void *add_out(uint16_t id, uint16_t size)
{
    return add(id, MANDATORY | OUT, NULL, size);
}

/* -1: the output was not written. */
static int bytes_written(const void *payload)
{
    const struct attribute *attribute = (const struct attribute *)payload - 1;
    return attribute->flags & FILLED ? (int)(attribute->flags >> 16) : -1;
}

static int call_on(int descriptor, enum method method)
{
    errno = 0;
    return ioctl(descriptor, _IOWR(0xdb, method, uint64_t), &message);
}

static int call(enum method method)
{
    return call_on(device, method);
}

/* Without attributes. */
static int call_plain(enum class class, enum method method, uint32_t object)
{
    begin(class, object);
    return call(method);
}

static void open_context(void)
{
    REFUSED(call_plain(PD, CREATE, 0), EINVAL); /* before the context */
    begin(DEVICE, 0);
    uint32_t *vectors = add_out(DEVICE_OPEN_NUM_COMP_VECTORS, 4);
    add_out(DEVICE_OPEN_CORE_SUPPORT, 8);
    EXPECT(call(DEVICE_OPEN) == 0 && bytes_written(vectors) == 4 && *vectors >= 1);
    REFUSED(call_plain(DEVICE, DEVICE_OPEN, 0), EINVAL); /* only once */
}

static void query_device(void)
{
    begin(DEVICE, 0);
    const uint8_t *attributes = add_out(DEVICE_QUERY_ATTRIBUTES, 256);
    EXPECT(call(QUERY) == 0 && bytes_written(attributes) >= 172 && message.header.flags == ANSWERED);
    /* Linux's struct ib_uverbs_query_device_resp: node_guid, max_qp, max_sge, phys_port_cnt. */
    uint64_t guid;
    uint32_t max_qp, max_sge;
    memcpy(&guid, attributes + 8, sizeof guid);
    memcpy(&max_qp, attributes + 52, sizeof max_qp);
    memcpy(&max_sge, attributes + 64, sizeof max_sge);
    const int ports = attributes[171];
    EXPECT(max_qp > 0 && max_sge > 0 && ports == 1);
    printf("device: GUID %016llx, %u QPs, %u SGEs, %d port\n", (unsigned long long)__builtin_bswap64(guid), max_qp,
           max_sge, ports);
    /* For an indirect output the answer has the number of bytes written. */
    static uint8_t elsewhere[256];
    const uint64_t pointer[2] = {(uintptr_t)elsewhere, sizeof elsewhere};
    begin(DEVICE, 0);
    const uint64_t *indirect = add(DEVICE_QUERY_ATTRIBUTES, MANDATORY | OUT | INDIRECT, pointer, sizeof pointer);
    EXPECT(call(QUERY) == 0 && indirect[1] >= 172 && elsewhere[171] == 1 && memcmp(elsewhere + 8, &guid, 8) == 0);
    /* Too short: nothing is written, and the needed length is returned. */
    begin(DEVICE, 0);
    attributes = add_out(DEVICE_QUERY_ATTRIBUTES, 8);
    REFUSED(call(QUERY), ENOSPC);
    EXPECT(((const struct attribute *)attributes - 1)->flags >> 16 >= 172 && attributes[0] == 0);
}

static uint32_t create_pd(void)
{
    EXPECT(call_plain(PD, CREATE, 0) == 0);
    return message.header.object;
}

static int create_mr(uint32_t pd, const void *start, uint64_t length)
{
    begin(MR, 0);
    add_u32(MR_CREATE_PD, pd);
    add_u64(MR_CREATE_START, (uintptr_t)start);
    add_u64(MR_CREATE_LENGTH, length);
    add_u64(MR_CREATE_IOVA, (uintptr_t)start);
    add_u32(MR_CREATE_ACCESS, 1 | 2); /* IBV_ACCESS_LOCAL_WRITE, IBV_ACCESS_REMOTE_WRITE */
    add_out(MR_CREATE_LKEY, 4);
    add_out(MR_CREATE_RKEY, 4);
    return call(CREATE);
}

/* An output of the last call. */
static uint32_t out_u32(uint16_t id)
{
    for (unsigned offset = sizeof message.header; offset < message.header.length;) {
        const struct attribute *attribute = (const void *)(message.bytes + offset);
        if (attribute->id == id && (attribute->flags & FILLED))
            return *(const uint32_t *)(attribute + 1);
        offset += (attribute->length + 7u) / 8 * 8;
    }
    printf("output %u is missing\n", id);
    exit(1);
}

static void pd_and_mr(void)
{
    static uint8_t buffer[8192];
    const uint32_t pd = create_pd();
    EXPECT(create_mr(pd, buffer, sizeof buffer) == 0);
    const uint32_t mr = message.header.object, lkey = out_u32(MR_CREATE_LKEY), rkey = out_u32(MR_CREATE_RKEY);
    EXPECT(mr != pd && lkey == rkey && lkey != 0);
    begin(MR, mr);
    uint64_t *length = add_out(MR_QUERY_LENGTH, 8);
    EXPECT(call(QUERY) == 0 && *length == sizeof buffer);
    printf("mr: handle %u, key 0x%x\n", mr, lkey);
    REFUSED(create_mr(pd, (void *)4096, 4096), EFAULT); /* not mapped */
    REFUSED(create_mr(mr, buffer, 16), EINVAL);         /* not a PD */
    REFUSED(create_mr(9999, buffer, 16), ENOENT);       /* no such object */
    REFUSED(call_plain(PD, DESTROY, pd), EBUSY);  /* the MR uses it */
    REFUSED(call_plain(PD, DESTROY, mr), EINVAL); /* not a PD */
    EXPECT(call_plain(MR, DESTROY, mr) == 0);
    REFUSED(call_plain(MR, DESTROY, mr), ENOENT); /* destroyed */
    EXPECT(call_plain(PD, DESTROY, pd) == 0);
}

/* `channel`: -1 for none. */
static int create_cq(uint32_t cqe, int channel)
{
    begin(CQ, 0);
    add_u32(CQ_CREATE_CQE, cqe);
    add_u64(CQ_CREATE_USER_HANDLE, 0xfeed);
    if (channel >= 0)
        add_u32(CQ_CREATE_CHANNEL, (uint32_t)channel);
    add_u32(CQ_CREATE_COMP_VECTOR, 0);
    add_out(CQ_CREATE_ACTUAL_CQE, 4);
    add_out(RXE_RING, sizeof(struct mminfo));
    return call(CREATE);
}

static uint32_t *map_ring(const struct mminfo *info)
{
    uint32_t *ring = mmap(NULL, info->size, PROT_READ | PROT_WRITE, MAP_SHARED, device, (off_t)info->offset);
    EXPECT(ring != MAP_FAILED);
    return ring;
}

static void request_notification(uint32_t cq)
{
    begin(CQ, cq);
    add_u32(CQ_REQ_NOTIFY_SOLICITED_ONLY, 0);
    EXPECT(call(REQ_NOTIFY) == 0);
}

/* Returns the number of completion events that the program has read. */
static uint32_t destroy_cq(uint32_t cq)
{
    begin(CQ, cq);
    add_out(CQ_DESTROY_COMP_EVENTS, 4);
    EXPECT(call(DESTROY) == 0);
    return out_u32(CQ_DESTROY_COMP_EVENTS);
}

static void cq(void)
{
    EXPECT(call_plain(COMP_CHANNEL, CREATE_FD, 0) == 0);
    const int channel = (int)message.header.object;
    EXPECT(fcntl(channel, F_GETFD) == FD_CLOEXEC);
    EXPECT(create_cq(100, channel) == 0);
    const uint32_t handle = message.header.object, cqe = out_u32(CQ_CREATE_ACTUAL_CQE);
    EXPECT(cqe >= 100);
    /* RXE_RING is the last attribute. */
    const struct mminfo info = *(const struct mminfo *)(message.bytes + message.header.length - sizeof info);
    uint32_t *ring = map_ring(&info);
    /* The mask is a power of two minus 1. One element of a ring is always free. */
    EXPECT(ring[INDEX_MASK] >= cqe && (ring[INDEX_MASK] & (ring[INDEX_MASK] + 1)) == 0);
    EXPECT(ring[PRODUCER_INDEX] == 0 && ring[CONSUMER_INDEX] == 0);
    printf("cq: handle %u, %u entries of %u bytes, channel %d\n", handle, cqe, 1u << ring[LOG2_ELEM_SIZE], channel);
    request_notification(handle);
    uint64_t event;
    EXPECT(fcntl(channel, F_SETFL, O_NONBLOCK) == 0);
    REFUSED((int)read(channel, &event, sizeof event), EAGAIN);
    EXPECT(destroy_cq(handle) == 0);
    REFUSED(create_cq(0, -1), EINVAL);
    REFUSED(create_cq(10, 0), EBADF); /* descriptor 0 is no channel */
    EXPECT(close(channel) == 0 && munmap(ring, info.size) == 0);
}

/*
 * Creates a queue pair, puts a receive into its receive ring, and moves the queue pair to the error state, which
 * flushes the receive. Returns the handle.
 */
static uint32_t create_qp_and_flush_receive(uint32_t pd, uint32_t cq)
{
    const uint32_t cap[5] = {0, 4, 0, 1, 0}; /* max_recv_wr 4, max_recv_sge 1 */
    begin(RC_QP, 0);
    add_u32(QP_CREATE_PD, pd);
    add_u32(QP_CREATE_SEND_CQ, cq);
    add_u32(QP_CREATE_RECV_CQ, cq);
    add(QP_CREATE_CAP, MANDATORY, cap, sizeof cap);
    add_u64(QP_CREATE_USER_HANDLE, 0);
    const struct mminfo *ring_output = add_out(RXE_RING, sizeof(struct mminfo));
    EXPECT(call(CREATE) == 0);
    const uint32_t qp = message.header.object;
    const struct mminfo info = *ring_output;
    uint32_t *ring = map_ring(&info);
    __atomic_store_n(&ring[PRODUCER_INDEX], 1, __ATOMIC_SEQ_CST);
    const uint8_t state = 6; /* IBV_QPS_ERR */
    begin(RC_QP, qp);
    add(QP_MODIFY_STATE, MANDATORY, &state, sizeof state);
    EXPECT(call(MODIFY) == 0 && munmap(ring, info.size) == 0);
    return qp;
}

/* A type of events. */
enum { COMPLETION = 0x100 };

struct event {
    uint64_t cookie;
    uint32_t object;
    uint16_t class, zero;
    uint32_t type, reserved;
};

static int attach(int queue, uint64_t cookie, uint32_t cq)
{
    begin(EVENT_QUEUE, 0);
    add_u64(EVENT_QUEUE_ATTACH_COOKIE, cookie);
    add_u32(EVENT_QUEUE_ATTACH_CQ, cq);
    return call_on(queue, ATTACH);
}

/* Returns the payload of the output, in which two events have space. */
static const void *begin_get_events(void)
{
    begin(EVENT_QUEUE, 0);
    add_u32(EVENT_QUEUE_GET_EVENTS_MAX, 2);
    return add_out(EVENT_QUEUE_GET_EVENTS_EVENTS, 2 * sizeof(struct event));
}

/* Methods of descriptors are called on the descriptor, with object 0 (R37-R39). */
static void event_queue(void)
{
    EXPECT(call_plain(COMP_CHANNEL, CREATE_FD, 0) == 0);
    const int channel = (int)message.header.object;
    EXPECT(call_plain(EVENT_QUEUE, CREATE_FD, 0) == 0);
    const int queue = (int)message.header.object;
    EXPECT(create_cq(10, channel) == 0);
    const uint32_t cq = message.header.object;
    begin(COMP_CHANNEL, 0);
    add_out(COMP_CHANNEL_GET_EVENT_USER_HANDLE, 8);
    REFUSED(call_on(channel, GET_EVENT), EAGAIN);
    begin(COMP_CHANNEL, 0);
    REFUSED(call_on(queue, GET_EVENT), EBADF); /* of another class */
    begin(PD, 0);
    REFUSED(call_on(queue, CREATE), EINVAL); /* PDs are named by handles, not descriptors */
    EXPECT(attach(queue, 0xc0ffee, cq) == 0);
    REFUSED(attach(queue, 1, cq), EBUSY); /* attached already */
    const uint32_t pd = create_pd();
    for (int by_method = 0; by_method < 2; by_method++) {
        request_notification(cq);
        const uint32_t qp = create_qp_and_flush_receive(pd, cq);
        struct event event = {0};
        struct pollfd readable = {.fd = queue, .events = POLLIN};
        EXPECT(poll(&readable, 1, 5000) == 1);
        if (by_method) {
            const void *events = begin_get_events();
            EXPECT(call_on(queue, GET_EVENTS) == 0 && bytes_written(events) == sizeof event);
            memcpy(&event, events, sizeof event);
        } else
            EXPECT(read(queue, &event, sizeof event) == sizeof event);
        EXPECT(event.cookie == 0xc0ffee && event.object == cq && event.class == CQ && event.type == COMPLETION);
        EXPECT(call_plain(RC_QP, DESTROY, qp) == 0);
    }
    begin_get_events();
    REFUSED(call_on(queue, GET_EVENTS), EAGAIN);
    EXPECT(destroy_cq(cq) == 2);
    EXPECT(call_plain(PD, DESTROY, pd) == 0 && close(queue) == 0 && close(channel) == 0);
}

static void mistakes(void)
{
    REFUSED(call_plain(99, CREATE, 0), EOPNOTSUPP); /* no such class */
    REFUSED(call_plain(PD, 31, 0), EOPNOTSUPP);     /* no such method */
    begin(PD, 0);
    add(NO_ATTRIBUTE, MANDATORY, NULL, 4);
    REFUSED(call(CREATE), EPROTONOSUPPORT);
    begin(PD, 0);
    add(NO_ATTRIBUTE, 0, NULL, 4);
    EXPECT(call(CREATE) == 0); /* not mandatory: ignored */
    EXPECT(call_plain(PD, DESTROY, message.header.object) == 0);
    begin(MR, 0);
    REFUSED(call(CREATE), EINVAL); /* attributes missing */
    begin(PD, 0);
    message.header.length = sizeof message.header - 8;
    REFUSED(call(CREATE), EINVAL);
    begin(PD, 0);
    add(NO_ATTRIBUTE, 0, NULL, 4);
    ((struct attribute *)(message.bytes + sizeof message.header))->length = 500;
    REFUSED(call(CREATE), EINVAL); /* longer than the message */
    REFUSED(ioctl(device, _IOWR(0xdb, CREATE, uint64_t), (void *)16), EFAULT); /* not mapped */
    REFUSED(ioctl(device, _IOWR(0xdb, CREATE, uint32_t), &message), ENOTTY);   /* another size */
    REFUSED(ioctl(device, _IOWR(0xda, CREATE, uint64_t), &message), ENOTTY);   /* another type */
}

/* The system-wide device lists all devices, and needs no DEVICE_OPEN. */
static void system_wide(void)
{
    struct {
        char name[64], driver[64];
        uint32_t index, driver_id, node_type, ports;
        uint8_t guid[8];
        uint32_t uverbs_abi, driver_abi;
    } devices[16] = {0};
    struct stat path_stat, fd_stat;
    const char *const path = "/dev/infiniband/userdma";
    const int system = open(path, O_RDWR | O_CLOEXEC);
    EXPECT(system >= 0 && stat(path, &path_stat) == 0 && fstat(system, &fd_stat) == 0 && S_ISCHR(fd_stat.st_mode));
    const uint64_t pointer[2] = {(uintptr_t)devices, sizeof devices};
    begin(SYSTEM, 0);
    const uint64_t *list = add(SYSTEM_QUERY_DEVICES, MANDATORY | OUT | INDIRECT, pointer, sizeof pointer);
    EXPECT(call_on(system, QUERY) == 0 && list[1] >= sizeof devices[0] && list[1] % sizeof devices[0] == 0);
    EXPECT(strcmp(devices[0].name, "rxe0") == 0 && strcmp(devices[0].driver, "rxe") == 0 && devices[0].index == 0);
    EXPECT(devices[0].driver_id == 14 /* RDMA_DRIVER_RXE */ && devices[0].node_type == 1 /* a channel adapter */);
    EXPECT(devices[0].ports == 1);
    EXPECT(devices[0].uverbs_abi == 6 && devices[0].driver_abi == 2);
    begin(PD, 0);
    REFUSED(call_on(system, CREATE), EOPNOTSUPP);
    begin(SYSTEM, 0);
    REFUSED(call(QUERY), EOPNOTSUPP); /* on device rxe0 */
    EXPECT(close(system) == 0);
}

int main(int argc, char **argv)
{
    const char *node = argc > 1 ? argv[1] : "/dev/infiniband/uverbs0";
    device = open(node, O_RDWR | O_CLOEXEC);
    if (device < 0) {
        printf("%s: %s\n", node, strerror(errno));
        return 1;
    }
    open_context();
    query_device();
    pd_and_mr();
    cq();
    event_queue();
    mistakes();
    system_wide();
    EXPECT(close(device) == 0);
    printf("all answers are right\n");
    return 0;
}
