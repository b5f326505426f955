/*
 * Gives firmware commands (DEVX) through libmlx5: capabilities, user memory, keys over it and over other keys, an
 * asynchronous query, commands that are refused. The last step is what `end` says: `destroy` all, `exit`, or `kill`
 * itself.
 *
 *   firmware DEVICE destroy|exit|kill
 */
#define _GNU_SOURCE
#include <endian.h>
#include <errno.h>
#include <infiniband/mlx5dv.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define NEED(condition, ...)                                                                                           \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, __VA_ARGS__);                                                                              \
            fputc('\n', stderr);                                                                                       \
            exit(2);                                                                                                   \
        }                                                                                                              \
    } while (0)

enum { QUERY_HCA_CAP = 0x100, CREATE_MKEY = 0x200, QUERY_MKEY = 0x201, ALLOC_PD = 0x800, CREATE_XRQ = 0x717 };
enum { MTT = 1, KSM = 3 };
#define MKEY_IN_BYTES 272
#define BYTES 65536

static void put(uint8_t *struct_, size_t word, uint32_t value)
{
    const uint32_t big = htobe32(value);
    memcpy(struct_ + 4 * word, &big, sizeof big);
}

static uint32_t get(const uint8_t *struct_, size_t word)
{
    uint32_t big;
    memcpy(&big, struct_ + 4 * word, sizeof big);
    return be32toh(big);
}

static void put_long(uint8_t *struct_, size_t word, uint64_t value)
{
    put(struct_, word, (uint32_t)(value >> 32));
    put(struct_, word + 1, (uint32_t)value);
}

static void command(uint8_t *in, uint16_t opcode, uint16_t op_mod)
{
    put(in, 0, (uint32_t)opcode << 16);
    put(in, 1, op_mod);
}

/* The memory key context begins at byte 16. All local and remote rights. */
static void key_context(uint8_t *in, int mode, uint32_t pd, uint64_t start, uint64_t length)
{
    command(in, CREATE_MKEY, 0);
    put(in, 4, 0x7c00u | (uint32_t)mode << 8);
    put(in, 5, 0xffffff00u);
    put(in, 7, pd);
    put_long(in, 8, start);
    put_long(in, 10, length);
}

static struct ibv_context *open_device(const char *name)
{
    int count;
    struct ibv_device **devices = ibv_get_device_list(&count);
    for (int i = 0; i < count; i++)
        if (strcmp(ibv_get_device_name(devices[i]), name) == 0) {
            struct mlx5dv_context_attr attr = {.flags = MLX5DV_CONTEXT_FLAGS_DEVX};
            struct ibv_context *context = mlx5dv_open_device(devices[i], &attr);
            NEED(context, "mlx5dv_open_device: %s", strerror(errno));
            ibv_free_device_list(devices);
            return context;
        }
    NEED(0, "there is no device %s", name);
    return NULL;
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fputs("usage: firmware DEVICE destroy|exit|kill\n", stderr);
        return 1;
    }
    struct ibv_context *context = open_device(argv[1]);

    uint8_t in[MKEY_IN_BYTES + 16] = {0}, out[4112] = {0};
    command(in, QUERY_HCA_CAP, 1);
    int error = mlx5dv_devx_general_cmd(context, in, 16, out, sizeof out);
    NEED(error == 0, "QUERY_HCA_CAP: %s", strerror(error));
    /* byte 0x38 of the capabilities: bits 3 to 7 of its first byte are log_max_msg */
    printf("log_max_msg %u\n", out[16 + 0x38] & 0x1f);

    struct mlx5dv_devx_obj *pd = NULL;
    memset(in, 0, sizeof in);
    memset(out, 0, sizeof out);
    command(in, ALLOC_PD, 0);
    pd = mlx5dv_devx_obj_create(context, in, 16, out, 16);
    NEED(pd, "ALLOC_PD: %s", strerror(errno));
    const uint32_t pdn = get(out, 2) & 0xffffff;

    uint8_t *memory = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct mlx5dv_devx_umem *umem = mlx5dv_devx_umem_reg(context, memory, BYTES, IBV_ACCESS_LOCAL_WRITE);
    NEED(umem, "mlx5dv_devx_umem_reg: %s", strerror(errno));

    memset(in, 0, sizeof in);
    key_context(in, MTT, pdn, (uintptr_t)memory, BYTES);
    put(in, 25, umem->umem_id);
    struct mlx5dv_devx_obj *key = mlx5dv_devx_obj_create(context, in, MKEY_IN_BYTES, out, 16);
    NEED(key, "CREATE_MKEY: %s, syndrome 0x%x", strerror(errno), get(out, 1));
    const uint32_t index = get(out, 2) & 0xffffff;

    memset(in, 0, sizeof in);
    key_context(in, KSM, pdn, 0, 8);
    put(in, 17, 1);                /* translations_octword_size */
    put(in, 18, 30);               /* log_entity_size */
    put(in, 24, 1);                /* translations_octword_actual_size */
    put(in, MKEY_IN_BYTES / 4 + 1, index << 8);
    put_long(in, MKEY_IN_BYTES / 4 + 2, (uintptr_t)memory);
    struct mlx5dv_devx_obj *flush = mlx5dv_devx_obj_create(context, in, MKEY_IN_BYTES + 16, out, 16);
    NEED(flush, "CREATE_MKEY of other keys: %s, syndrome 0x%x", strerror(errno), get(out, 1));
    const uint32_t flush_index = get(out, 2) & 0xffffff;
    puts("keys of memory and of other keys");

    struct mlx5dv_devx_cmd_comp *answers = mlx5dv_devx_create_cmd_comp(context);
    NEED(answers, "mlx5dv_devx_create_cmd_comp: %s", strerror(errno));
    memset(in, 0, sizeof in);
    command(in, QUERY_MKEY, 0);
    put(in, 2, flush_index);
    error = mlx5dv_devx_obj_query_async(flush, in, 16, 304, 77, answers);
    NEED(error == 0, "mlx5dv_devx_obj_query_async: %s", strerror(error));
    uint8_t record[8 + 304];
    struct mlx5dv_devx_async_cmd_hdr *answer = (struct mlx5dv_devx_async_cmd_hdr *)record;
    error = mlx5dv_devx_get_async_cmd_comp(answers, answer, sizeof record);
    NEED(error == 0, "mlx5dv_devx_get_async_cmd_comp: %s", strerror(error));
    printf("answer %llu: status %u, length %u\n", (unsigned long long)answer->wr_id, answer->out_data[0],
           get(answer->out_data, 11));

    memset(in, 0, sizeof in);
    memset(out, 0, sizeof out);
    command(in, CREATE_XRQ, 0);
    NEED(!mlx5dv_devx_obj_create(context, in, 16, out, 16), "CREATE_XRQ is not refused");
    printf("CREATE_XRQ: status %u, syndrome 0x%x\n", out[0], get(out, 1));
    command(in, QUERY_MKEY, 0);
    put(in, 2, index);
    error = mlx5dv_devx_obj_query(flush, in, 16, out, 304);
    printf("QUERY_MKEY of another object: %s\n", error == 0 ? "success" : strerrorname_np(error));
    error = mlx5dv_devx_umem_dereg(umem);
    printf("deregistration in use: %s\n", error == 0 ? "success" : strerrorname_np(error));

    struct ibv_pd *domain = ibv_alloc_pd(context);
    struct ibv_mr *nothing = ibv_alloc_null_mr(domain);
    printf("null region: %s\n", nothing ? "yes" : strerrorname_np(errno));
    fflush(stdout);

    if (strcmp(argv[2], "kill") == 0)
        raise(SIGKILL);
    if (strcmp(argv[2], "destroy") != 0)
        return 0;
    NEED(ibv_dereg_mr(nothing) == 0 && ibv_dealloc_pd(domain) == 0, "the null region is in use");
    mlx5dv_devx_destroy_cmd_comp(answers);
    NEED(mlx5dv_devx_obj_destroy(flush) == 0 && mlx5dv_devx_obj_destroy(key) == 0, "keys are in use");
    struct mlx5dv_devx_umem *again = mlx5dv_devx_umem_reg(context, memory, BYTES, 0);
    NEED(again && mlx5dv_devx_umem_dereg(again) == 0, "a second registration");
    NEED(mlx5dv_devx_obj_destroy(pd) == 0, "the domain is in use");
    NEED(ibv_close_device(context) == 0, "ibv_close_device");
    return 0;
}
