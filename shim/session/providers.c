/*
 * At the end of a program that has opened no device although the daemon has some: says if libibverbs lacks the provider
 * library of each. libibverbs itself only finds no devices. src/cli/doctor/programs.ts has the same advice.
 *
 * Other programs pay for a comparison: one that has opened a device, or has looked at no RDMA path.
 */
#define _GNU_SOURCE
#include "connection.h"

#include <limits.h>
#include <link.h>
#include <stdio.h>
#include <string.h>

/* Devices that are looked at. */
#define MAX_DEVICES 16
/* Bytes of the name of a device or driver, with NUL. */
#define NAME_BYTES 64

struct device {
    char name[NAME_BYTES];
    /* As in the name of its provider, lib<driver>-rdmav34.so. */
    char driver[NAME_BYTES];
};

struct providers {
    struct device devices[MAX_DEVICES];
    int count;
    /* The path of libibverbs in this process; empty: it has none. */
    char verbs[PATH_MAX];
    /* Whether there is the provider of a device. */
    bool is_found;
};

static bool starts_with(const char *text, const char *start)
{
    return strncmp(text, start, strlen(start)) == 0;
}

/* Whether `name` is that of a device's library: lib<driver> with one of the endings. */
static bool is_provider(const struct providers *all, const char *name, const char *const endings[2])
{
    for (int i = 0; i < all->count; i++)
        for (int end = 0; end < 2 && endings[end]; end++) {
            char start[NAME_BYTES + 16];
            snprintf(start, sizeof start, "lib%s%s", all->devices[i].driver, endings[end]);
            if (starts_with(name, start))
                return true;
        }
    return false;
}

/* librxe-rdmav34.so. A program may be linked with a provider: libmlx5.so.1. */
static const char *const files[2] = {"-rdmav"}, *const loaded[2] = {"-rdmav", ".so"};

/* For dl_iterate_phdr: finds libibverbs, and providers that are loaded, wherever they were found. */
static int look_at(struct dl_phdr_info *info, size_t size, void *data)
{
    (void)size;
    struct providers *all = data;
    const char *slash = strrchr(info->dlpi_name, '/');
    const char *name = slash ? slash + 1 : info->dlpi_name;
    if (starts_with(name, "libibverbs.so"))
        snprintf(all->verbs, sizeof all->verbs, "%s", info->dlpi_name);
    all->is_found |= is_provider(all, name, loaded);
    return 0;
}

/* Reads the device behind a folder `uverbsN`. False: it has gone. */
static bool read_device(const char *folder, struct device *device)
{
    char path[PATH_MAX + 32], driver[PATH_MAX];
    snprintf(path, sizeof path, "%s/ibdev", folder);
    const int fd = REAL(open)(path, O_RDONLY | O_CLOEXEC);
    const ssize_t length = fd < 0 ? 0 : REAL(read)(fd, device->name, NAME_BYTES - 1);
    if (fd >= 0)
        REAL(close)(fd);
    device->name[length > 0 ? length : 0] = 0;
    device->name[strcspn(device->name, "\n")] = 0;
    snprintf(path, sizeof path, "%s/device/driver", folder);
    const ssize_t linked = REAL(readlink)(path, driver, sizeof driver - 1);
    driver[linked > 0 ? linked : 0] = 0;
    const char *slash = strrchr(driver, '/');
    /* `mlx5_core` is libmlx5's. A device without one is rxe's, or has its format. */
    snprintf(device->driver, NAME_BYTES, "%.*s", slash ? (int)strcspn(slash + 1, "_") : 3, slash ? slash + 1 : "rxe");
    return *device->name != 0;
}

static void read_devices(struct providers *all)
{
    char list[sizeof session.root + 32], folder[sizeof list + NAME_BYTES];
    snprintf(list, sizeof list, "%s/sys/class/infiniband_verbs", session.root);
    DIR *entries = REAL(opendir)(list);
    if (!entries)
        return;
    for (struct dirent *entry; all->count < MAX_DEVICES && (entry = REAL(readdir)(entries));) {
        if (!starts_with(entry->d_name, "uverbs") || strlen(entry->d_name) >= NAME_BYTES)
            continue;
        snprintf(folder, sizeof folder, "%s/%s", list, entry->d_name);
        all->count += read_device(folder, &all->devices[all->count]);
    }
    REAL(closedir)(entries);
}

/* Whether a folder has a provider that was not loaded: the program may not have asked for its devices. */
static bool has_provider(const struct providers *all, const char *path)
{
    DIR *entries = REAL(opendir)(path);
    bool has = false;
    for (struct dirent *entry; entries && !has && (entry = REAL(readdir)(entries));)
        has = is_provider(all, entry->d_name, files) && strstr(entry->d_name, ".so"); /* not librxe-rdmav34.a */
    if (entries)
        REAL(closedir)(entries);
    return has;
}

bool session_has_opened;

__attribute__((destructor)) static void tell_missing_providers(void)
{
    struct providers all = {.count = 0};
    char folder[PATH_MAX + 16];
    if (session_has_opened || session.fd < 0 || shim_is_other_process())
        return;
    read_devices(&all);
    dl_iterate_phdr(look_at, &all);
    char *slash = strrchr(all.verbs, '/');
    if (all.count == 0 || all.is_found || !slash)
        return;
    /* An installed libibverbs has its providers in a folder beside it, that of a build among its libraries. */
    const int length = (int)(slash - all.verbs);
    snprintf(folder, sizeof folder, "%.*s/libibverbs", length, all.verbs);
    if (has_provider(&all, folder))
        return;
    snprintf(folder, sizeof folder, "%.*s", length, all.verbs);
    if (!has_provider(&all, folder))
        diagnose_no_provider(all.devices[0].name, all.devices[0].driver, all.verbs);
}
