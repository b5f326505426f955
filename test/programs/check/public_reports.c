/*
 * What public reports describe, each in a few lines, for docs/reference/public-reports.md: public_reports REPORT. A run
 * ends by itself, or is ended by a time limit.
 */
#include "../../../docs/findings/pair.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <limits.h>
#include <rdma/rdma_cma.h>

static struct end one, other;

static int writes(uint64_t number)
{
    struct ibv_sge sge = all_of(&one);
    struct ibv_send_wr *bad, wr = {
                                 .wr_id = number,
                                 .sg_list = &sge,
                                 .num_sge = 1,
                                 .opcode = IBV_WR_RDMA_WRITE,
                                 .send_flags = IBV_SEND_SIGNALED,
                                 .wr.rdma = {.remote_addr = address_of(&other), .rkey = other.mr->rkey},
                             };
    return ibv_post_send(one.qp, &wr, &bad);
}

/* Mooncake #3299: the peer is gone, and each failure makes a new queue pair to it. */
static void reconnects(void)
{
    check(ibv_destroy_qp(other.qp), "ibv_destroy_qp");
    other.qp = NULL;
    for (int attempt = 0; attempt < 8; attempt++) {
        check(writes(1), "ibv_post_send");
        completion(&one);
        check(ibv_destroy_qp(one.qp), "ibv_destroy_qp");
        struct ibv_qp_init_attr init = small_qp();
        init.send_cq = init.recv_cq = one.cq;
        create_queue_pair(&one, init);
        to_init(&one);
        to_rtr(&one, NULL);
        to_rts(&one);
    }
}

/* nccl #2119: an element is taken out of a queue, its post is refused, and the element is lost. */
static void loses_element(void)
{
    for (uint64_t element = 0; element < 4; element++)
        writes(element);
    for (int done = 0; done < 4; done++)
        completion(&one);
}

/* nccl #2203: a flag in memory is waited for, while the completion that says what failed is not polled. */
static void spins_on_memory(void)
{
    volatile char *const flag = other.buffer;
    one.buffer[0] = 1;
    other.mr->rkey++;
    check(writes(1), "ibv_post_send");
    while (*flag == 0)
        ;
}

/* FastDeploy #8091: a list for which there is no room is posted again from its head. */
static void posts_again(void)
{
    enum { COUNT = 64 };
    struct ibv_send_wr list[COUNT], *bad;
    struct ibv_sge sge = all_of(&one);
    for (int i = 0; i < COUNT; i++)
        list[i] = (struct ibv_send_wr){
            .wr_id = (uint64_t)i,
            .sg_list = &sge,
            .num_sge = 1,
            .opcode = IBV_WR_RDMA_WRITE,
            .wr.rdma = {.remote_addr = address_of(&other), .rkey = other.mr->rkey},
            .next = i + 1 < COUNT ? &list[i + 1] : NULL,
        };
    for (int attempt = 0; attempt < 8 && ibv_post_send(one.qp, list, &bad) != 0; attempt++)
        usleep(1000);
}

/* SPDK #3807: what a wr_id points to is freed with the queue pair, and its completion is polled afterwards. */
static void frees_request(void)
{
    int *const request = need(calloc(1, sizeof *request), "calloc");
    struct ibv_wc wc;
    check(writes((uintptr_t)request), "ibv_post_send");
    usleep(100000);
    check(ibv_destroy_qp(one.qp), "ibv_destroy_qp");
    free(request);
    if (ibv_poll_cq(one.cq, 1, &wc) > 0)
        printf("request %d\n", *(int *)(uintptr_t)wc.wr_id);
}

/* uccl #1049: room in a window is waited for, which only its own unpolled completions would make. */
static void waits_for_room(void)
{
    int outstanding = 0;
    struct ibv_wc wc;
    for (uint64_t i = 0; i < 32; i++) {
        while (outstanding == 4)
            usleep(10);
        check(writes(i), "ibv_post_send");
        outstanding++;
        if (i % 16 == 15)
            while (ibv_poll_cq(one.cq, 1, &wc) > 0)
                outstanding--;
    }
}

/* 3FS #320: the first message has no bytes, and the network drops such messages. */
static void greets_with_nothing(void)
{
    post_receive(&other, all_of(&other));
    post(&one, IBV_WR_SEND, (struct ibv_sge){.lkey = one.mr->lkey}, 0, 0);
    completion(&one);
}

static struct rdma_cm_event *next_event(struct rdma_event_channel *channel)
{
    struct rdma_cm_event *event;
    check(rdma_get_cm_event(channel, &event), "rdma_get_cm_event");
    return event;
}

static void create_cm_queue_pair(struct rdma_cm_id *id)
{
    struct ibv_qp_init_attr init = {.qp_type = IBV_QPT_RC, .cap = {1, 1, 1, 1}};
    check(rdma_create_qp(id, NULL, &init), "rdma_create_qp");
}

static void connect_to(struct sockaddr *address)
{
    struct rdma_event_channel *const channel = need(rdma_create_event_channel(), "rdma_create_event_channel");
    struct rdma_cm_id *id;
    check(rdma_create_id(channel, &id, NULL, RDMA_PS_TCP), "rdma_create_id");
    check(rdma_resolve_addr(id, NULL, address, 2000), "rdma_resolve_addr");
    rdma_ack_cm_event(next_event(channel));
    check(rdma_resolve_route(id, 2000), "rdma_resolve_route");
    rdma_ack_cm_event(next_event(channel));
    create_cm_queue_pair(id);
    check(rdma_connect(id, NULL), "rdma_connect");
    rdma_ack_cm_event(next_event(channel));
    rdma_ack_cm_event(next_event(channel));
    rdma_disconnect(id);
    _exit(0);
}

/* libevpl #52: a server frees its connection when it disconnects it; DISCONNECTED comes later, for the same identifier.
 * */
static void frees_connection(void)
{
    struct connection {
        int number;
    };
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(18591)};
    inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
    struct rdma_event_channel *const channel = need(rdma_create_event_channel(), "rdma_create_event_channel");
    struct rdma_cm_id *listener;
    check(rdma_create_id(channel, &listener, NULL, RDMA_PS_TCP), "rdma_create_id");
    check(rdma_bind_addr(listener, (struct sockaddr *)&address), "rdma_bind_addr");
    check(rdma_listen(listener, 1), "rdma_listen");
    if (fork() == 0)
        connect_to((struct sockaddr *)&address);
    struct rdma_cm_event *event = next_event(channel);
    struct rdma_cm_id *const id = event->id;
    id->context = need(calloc(1, sizeof(struct connection)), "calloc");
    rdma_ack_cm_event(event);
    create_cm_queue_pair(id);
    check(rdma_accept(id, NULL), "rdma_accept");
    rdma_ack_cm_event(next_event(channel));
    check(rdma_disconnect(id), "rdma_disconnect");
    free(id->context);
    event = next_event(channel);
    printf("connection %d: %s\n", ((struct connection *)event->id->context)->number, rdma_event_str(event->event));
    rdma_ack_cm_event(event);
    rdma_destroy_qp(id);
    rdma_destroy_id(id);
    rdma_destroy_id(listener);
    wait(NULL);
}

/* Mooncake #2747, uccl #803: of the GIDs the first is taken, which is link-local, and the peer is behind a router. */
static void takes_first_gid(void)
{
    open_device();
    make_end(&one);
    make_end(&other);
    inet_pton(AF_INET6, "fe80::690:81ff:fe37:a9e8", one.attr.ah_attr.grh.dgid.raw);
    one.attr.ah_attr.grh.sgid_index = 0;
    one.attr.dest_qp_num = 0x4242;
    connect_ends(&one, &other);
    check(writes(1), "ibv_post_send");
    completion(&one);
}

/* versitygw #2275, Mooncake #113: the index of the GID is 3, whatever the table has. */
static void takes_index_three(void)
{
    open_device();
    make_end(&one);
    make_end(&other);
    one.attr.ah_attr.grh.sgid_index = 3;
    connect_ends(&one, &other);
}

/* ucx #10325: one end of a connection sends in the class that was asked for, and the other in class 0. */
static void answers_in_class_zero(void)
{
    open_device();
    make_end(&one);
    make_end(&other);
    one.attr.ah_attr.grh.traffic_class = 236;
    connect_ends(&one, &other);
    check(writes(1), "ibv_post_send");
    completion(&one);
}

/* nccl #2383, mori #362: queue pairs that a library makes itself stay in class 0, those beside them do not. */
static void forgets_class(void)
{
    struct end own = {0}, peer = {0};
    open_device();
    make_end(&one);
    make_end(&other);
    one.attr.ah_attr.grh.traffic_class = other.attr.ah_attr.grh.traffic_class = 236;
    connect_ends(&one, &other);
    make_end(&own);
    make_end(&peer);
    connect_ends(&own, &peer);
}

/* rdma-core #1637, mori #298: the hop limit is 1, which the adapter takes as it is, and a router is on the way. */
static void has_one_hop(void)
{
    open_device();
    struct ibv_pd *const pd = need(ibv_alloc_pd(context), "ibv_alloc_pd");
    struct ibv_ah_attr attr = {.is_global = 1, .port_num = 1};
    attr.grh.sgid_index = (uint8_t)gid_index;
    attr.grh.hop_limit = 1;
    inet_pton(AF_INET6, "::ffff:192.0.2.1", attr.grh.dgid.raw);
    need(ibv_create_ah(pd, &attr), "ibv_create_ah");
}

/* Mooncake #3977: each queue pair asks for as many responder resources as the device has in all. */
static void takes_all_resources(void)
{
    struct ibv_device_attr attr;
    open_device();
    check(ibv_query_device(context, &attr), "ibv_query_device");
    make_end(&one);
    make_end(&other);
    one.attr.max_dest_rd_atomic = other.attr.max_dest_rd_atomic = (uint8_t)attr.max_qp_rd_atom;
    connect_ends(&one, &other);
}

/* mori #670: the adapter dies, tells nothing, and the program waits for a completion for ever. */
static void waits_for_adapter(void)
{
    for (uint64_t number = 0; number < 4; number++) {
        check(writes(number), "ibv_post_send");
        completion(&one);
    }
}

/* The folder of a PCI function, or of that of an RDMA device; NULL: it has none. */
static char *folder_of(const char *class, const char *name)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "/sys/%s/%s%s", class, name, strcmp(class, "class/infiniband") == 0 ? "/device" : "");
    char *const folder = realpath(path, NULL);
    return folder && strstr(folder, "/pci") ? folder : NULL;
}

static int number_in(const char *folder, const char *name, int base)
{
    char path[PATH_MAX], text[32] = "-1";
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *const file = fopen(path, "r");
    if (file && !fgets(text, sizeof text, file))
        text[0] = 0;
    if (file)
        fclose(file);
    return (int)strtol(text, NULL, base);
}

/* What lies between two functions, from the nearest on, by the names of `nvidia-smi topo -m`. */
static const char *const kinds[] = {"PIX", "PXB", "PHB", "NODE", "SYS"};

static int kind_between(const char *one_path, const char *other_path)
{
    int depth = 0, below = 0;
    const char *a = one_path, *b = other_path;
    for (; *a && *a == *b; a++, b++)
        depth += *a == '/';
    /* /sys/devices/pci0000:15/… */
    if (depth < 4)
        return number_in(one_path, "numa_node", 10) == number_in(other_path, "numa_node", 10) ? 3 : 4;
    if (depth == 4)
        return 2;
    for (; *a; a++)
        below += *a == '/';
    return below < 2 ? 0 : 1;
}

enum { DISPLAY = 3, MAX_GPUS = 16, CONNECTX = 0x15b3, DMA_FUNCTION = 0x2100 };

/* The addresses and folders of all GPUs, up to one without a folder. */
static struct gpu {
    char *address, *folder;
} gpus[MAX_GPUS + 1];
/* Functions by which an adapter reaches the memory of a GPU. */
static int dma_functions;

static struct ibv_device **open_machine(void)
{
    struct dirent **entries;
    const int all = scandir("/sys/bus/pci/devices", &entries, NULL, alphasort);
    for (int i = 0, count = 0; i < all && count < MAX_GPUS; i++) {
        char *const folder = entries[i]->d_name[0] == '.' ? NULL : folder_of("bus/pci/devices", entries[i]->d_name);
        if (folder && number_in(folder, "class", 16) >> 16 == DISPLAY)
            gpus[count++] = (struct gpu){entries[i]->d_name, folder};
        if (folder && number_in(folder, "vendor", 16) == CONNECTX && number_in(folder, "device", 16) == DMA_FUNCTION)
            dma_functions++;
    }
    return need(ibv_get_device_list(NULL), "ibv_get_device_list");
}

/* For each GPU the adapter that a program takes, and the nearest one. */
static void places_adapters(struct ibv_device *(*choose)(const char *gpu, struct ibv_device **list))
{
    struct ibv_device **const list = open_machine();
    for (const struct gpu *gpu = gpus; gpu->folder; gpu++) {
        struct ibv_device *const taken = choose(gpu->folder, list);
        int nearest = 0, least = 5, own = 5;
        for (int device = 0; list[device]; device++) {
            const char *const folder = folder_of("class/infiniband", ibv_get_device_name(list[device]));
            const int kind = folder ? kind_between(gpu->folder, folder) : 5;
            if (list[device] == taken)
                own = kind;
            if (kind >= least)
                continue;
            least = kind;
            nearest = device;
        }
        if (!taken || own == 5)
            printf("%s takes no adapter: %s has no PCI function\n", gpu->address,
                   ibv_get_device_name(taken ? taken : list[0]));
        else
            printf("%s takes %s by %s, and %s is by %s\n", gpu->address, ibv_get_device_name(taken), kinds[own],
                   ibv_get_device_name(list[nearest]), kinds[least]);
    }
}

/* monarch #1305: all GPUs take the first adapter. */
static struct ibv_device *first_device(const char *gpu, struct ibv_device **list)
{
    (void)gpu;
    return list[0];
}

static void takes_first_adapter(void)
{
    places_adapters(first_device);
}

/* torchcomms #698: a GPU takes the first adapter of its NUMA node. */
static struct ibv_device *first_of_node(const char *gpu, struct ibv_device **list)
{
    for (int i = 0; list[i]; i++) {
        const char *const folder = folder_of("class/infiniband", ibv_get_device_name(list[i]));
        if (folder && number_in(folder, "numa_node", 10) == number_in(gpu, "numa_node", 10))
            return list[i];
    }
    return NULL;
}

static void takes_adapter_of_node(void)
{
    places_adapters(first_of_node);
}

/* NVSentinel #1485: one device without a PCI function, and the whole topology is given up. */
static struct ibv_device *none_without_function(const char *gpu, struct ibv_device **list)
{
    for (int i = 0; list[i]; i++)
        if (!folder_of("class/infiniband", ibv_get_device_name(list[i])))
            return list[i];
    return first_of_node(gpu, list);
}

static void gives_topology_up(void)
{
    places_adapters(none_without_function);
}

/* rdma-core #1725: an adapter is looked for by the DMA function beside its GPU, which few machines have. */
static void looks_for_dma_function(void)
{
    struct ibv_device **const list = open_machine();
    for (int device = 0; list[device]; device++) {
        const char *const folder = folder_of("class/infiniband", ibv_get_device_name(list[device]));
        for (const struct gpu *gpu = gpus; folder && gpu->folder; gpu++)
            if (kind_between(gpu->folder, folder) == 0)
                printf("%d DMA functions, and %s shares a switch with the GPU %s\n", dma_functions,
                       ibv_get_device_name(list[device]), gpu->address);
    }
}

static const struct {
    const char *name;
    void (*run)(void);
    /* It makes what it needs itself. */
    int is_alone;
} reports[] = {
    {"mooncake-3299", reconnects, 0},
    {"nccl-2119", loses_element, 0},
    {"nccl-2203", spins_on_memory, 0},
    {"fastdeploy-8091", posts_again, 0},
    {"spdk-3807", frees_request, 0},
    {"uccl-1049", waits_for_room, 0},
    {"3fs-320", greets_with_nothing, 0},
    {"libevpl-52", frees_connection, 1},
    {"mooncake-2747", takes_first_gid, 1},
    {"mooncake-113", takes_index_three, 1},
    {"ucx-10325", answers_in_class_zero, 1},
    {"nccl-2383", forgets_class, 1},
    {"rdma-core-1637", has_one_hop, 1},
    {"mooncake-3977", takes_all_resources, 1},
    {"mori-670", waits_for_adapter, 0},
    {"monarch-1305", takes_first_adapter, 1},
    {"torchcomms-698", takes_adapter_of_node, 1},
    {"nvsentinel-1485", gives_topology_up, 1},
    {"rdma-core-1725", looks_for_dma_function, 1},
};

int main(int count, char **arguments)
{
    const size_t all = sizeof reports / sizeof *reports;
    size_t i = 0;
    while (i < all && !(count == 2 && strcmp(arguments[1], reports[i].name) == 0))
        i++;
    if (i == all) {
        fprintf(stderr, "usage: %s REPORT\n", arguments[0]);
        return 1;
    }
    if (!reports[i].is_alone)
        make_pair(&one, &other);
    reports[i].run();
    return 0;
}
