/*
 * Prints the GID table of a device, as ibv_query_gid_table returns it, an entry a line:
 *
 *     gid_table DEVICE        INDEX TYPE IFINDEX GID
 *
 * TYPE and GID are as in sysfs. Exits with 2 if ibv_query_gid_ex or ibv_query_gid says otherwise.
 */
#include <infiniband/verbs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_ENTRIES 1024

static const char *type_name(uint32_t type)
{
    return type == IBV_GID_TYPE_ROCE_V2 ? "RoCE v2" : "IB/RoCE v1";
}

static struct ibv_context *open_device(const char *name)
{
    struct ibv_device **devices = ibv_get_device_list(NULL), **found = devices;
    while (found && *found && strcmp(ibv_get_device_name(*found), name) != 0)
        found++;
    struct ibv_context *context = found && *found ? ibv_open_device(*found) : NULL;
    ibv_free_device_list(devices);
    return context;
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: gid_table DEVICE\n");
        return 1;
    }
    static struct ibv_gid_entry entries[MAX_ENTRIES];
    struct ibv_context *context = open_device(argv[1]);
    const ssize_t count = context ? ibv_query_gid_table(context, entries, MAX_ENTRIES, 0) : -1;
    if (count < 0) {
        perror(argv[1]);
        return 2;
    }
    for (ssize_t i = 0; i < count; i++) {
        const struct ibv_gid_entry *entry = &entries[i];
        struct ibv_gid_entry one;
        union ibv_gid gid;
        if (ibv_query_gid_ex(context, entry->port_num, entry->gid_index, &one, 0) ||
            memcmp(&one, entry, sizeof one) != 0 ||
            ibv_query_gid(context, entry->port_num, (int)entry->gid_index, &gid) ||
            memcmp(&gid, &entry->gid, sizeof gid) != 0) {
            fprintf(stderr, "entry %u differs\n", entry->gid_index);
            return 2;
        }
        printf("%u %s %u ", entry->gid_index, type_name(entry->gid_type), entry->ndev_ifindex);
        for (int byte = 0; byte < 16; byte++)
            printf("%s%02x", byte > 0 && byte % 2 == 0 ? ":" : "", entry->gid.raw[byte]);
        printf("\n");
    }
    return ibv_close_device(context) ? 2 : 0;
}
