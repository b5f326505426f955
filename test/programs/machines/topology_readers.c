/*
 * What two programs without a GPU would learn of each adapter, by the files that they read. A line for each device:
 *
 * - `nccl`: the address, the PCI functions above it, the NUMA node and its processors, as NCCL looks for the place of
 *   a network device (2026; in src/ transport/net_ib/init.cc, graph/xml.cc, os/linux.cc): realpath of its function,
 *   then of each bus in the class pci_bus, up to a name that is no PCI address;
 * - `mooncake`: the address, the NUMA node, and the GPU that is nearest by the names that differ in the paths of both
 *   functions (2026; topology.cpp of its transfer engine).
 */
#include <ctype.h>
#include <dirent.h>
#include <infiniband/verbs.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The first line of a file in a folder; "-" without one. */
static const char *text_of(const char *folder, const char *name)
{
    static char text[4][PATH_MAX];
    static unsigned next;
    char path[PATH_MAX + 64], *const line = text[next++ % 4];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *const file = fopen(path, "r");
    if (!file || !fgets(line, PATH_MAX, file))
        strcpy(line, "-");
    if (file)
        fclose(file);
    line[strcspn(line, "\n")] = 0;
    return line;
}

static int is_address(const char *name)
{
    for (const char *form = "xxxx:xx:xx.x"; *form; form++, name++)
        if (*form == 'x' ? !isxdigit((unsigned char)*name) : *name != *form)
            return 0;
    return *name == 0;
}

/* The folder of a function, by the class of buses. */
static char *folder_of(const char *address)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "/sys/class/pci_bus/%.7s/../../%s", address, address);
    return realpath(path, NULL);
}

static void as_nccl(const char *device)
{
    char path[PATH_MAX], node[32] = "-";
    snprintf(path, sizeof path, "/sys/class/infiniband/%s/device", device);
    char *own = realpath(path, NULL);
    printf("nccl %s", device);
    for (char *address = own ? strrchr(own, '/') + 1 : NULL; address && is_address(address);) {
        char *const folder = folder_of(address);
        if (!folder)
            break;
        printf(" %s(%s,%s,%s,%s)", address, text_of(folder, "class"), text_of(folder, "vendor"),
               text_of(folder, "max_link_speed"), text_of(folder, "max_link_width"));
        snprintf(node, sizeof node, "%.31s", text_of(folder, "numa_node"));
        *strrchr(folder, '/') = 0;
        free(own);
        own = folder;
        address = strrchr(own, '/') + 1;
    }
    free(own);
    snprintf(path, sizeof path, "/sys/devices/system/node/node%s", node);
    printf(" node=%s cpus=%s\n", node, text_of(path, "cpumap"));
}

/* How many names of the paths differ; -1: one of the functions is not there. */
static int distance(const char *one, const char *other)
{
    char path[PATH_MAX], first[PATH_MAX], second[PATH_MAX];
    snprintf(path, sizeof path, "/sys/bus/pci/devices/%s", one);
    if (!realpath(path, first))
        return -1;
    snprintf(path, sizeof path, "/sys/bus/pci/devices/%s", other);
    if (!realpath(path, second))
        return -1;
    size_t same = 0;
    while (first[same] && first[same] == second[same])
        same++;
    int count = 0;
    for (const char *rest = first + same; *rest; rest++)
        count += *rest == '/';
    for (const char *rest = second + same; *rest; rest++)
        count += *rest == '/';
    return count;
}

static void as_mooncake(const char *device)
{
    char path[PATH_MAX], own[PATH_MAX], gpu[16] = "none";
    int least = INT_MAX;
    snprintf(path, sizeof path, "/sys/class/infiniband/%s/../..", device);
    if (!realpath(path, own))
        return;
    const char *const address = strrchr(own, '/') + 1;
    struct dirent **names;
    const int count = scandir("/sys/bus/pci/devices", &names, NULL, alphasort);
    for (int i = 0; i < count; free(names[i++])) {
        snprintf(path, sizeof path, "/sys/bus/pci/devices/%s", names[i]->d_name);
        if (strncmp(text_of(path, "class"), "0x03", 4) != 0)
            continue;
        const int found = distance(address, names[i]->d_name);
        if (found >= 0 && found < least) {
            least = found;
            snprintf(gpu, sizeof gpu, "%.15s", names[i]->d_name);
        }
    }
    if (count >= 0)
        free(names);
    printf("mooncake %s %s node=%s gpu=%s\n", device, address, text_of(own, "numa_node"), gpu);
}

int main(int argc, char **argv)
{
    if (argc != 1) {
        fprintf(stderr, "usage: topology_readers, not %s\n", argv[1]);
        return 1;
    }
    int count;
    struct ibv_device **const devices = ibv_get_device_list(&count);
    for (int i = 0; devices && i < count; i++) {
        as_nccl(ibv_get_device_name(devices[i]));
        as_mooncake(ibv_get_device_name(devices[i]));
    }
    if (devices)
        ibv_free_device_list(devices);
    return 0;
}
