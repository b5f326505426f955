/*
 * Reads from a library's dynamic section which libraries it needs, and the folders to search for them. The file is read
 * and not mapped: if a mapped file is truncated, the program gets SIGBUS.
 */
#define _GNU_SOURCE
#include "loading.h"

#include <elf.h>
#include <string.h>

/* A file with more program headers or dynamic entries counts as one without needed libraries. */
#define MAX_HEADERS 32
#define MAX_ENTRIES 512

struct elf_file {
    int fd;
    unsigned count;
    Elf64_Phdr headers[MAX_HEADERS];
};

static bool read_at(int fd, void *out, size_t size, uint64_t offset)
{
    return REAL(pread)(fd, out, size, (off_t)offset) == (ssize_t)size;
}

static bool read_headers(struct elf_file *file)
{
    Elf64_Ehdr header;
    if (!read_at(file->fd, &header, sizeof header, 0) || memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 ||
        header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_phentsize != sizeof(Elf64_Phdr) ||
        header.e_phnum > MAX_HEADERS)
        return false;
    file->count = header.e_phnum;
    return read_at(file->fd, file->headers, file->count * sizeof(Elf64_Phdr), header.e_phoff);
}

/* File offset of the byte that is loaded at `address`; 0 if there is none. */
static uint64_t offset_of(const struct elf_file *file, uint64_t address)
{
    for (unsigned i = 0; i < file->count; i++) {
        const Elf64_Phdr *header = file->headers + i;
        if (header->p_type == PT_LOAD && address >= header->p_vaddr && address - header->p_vaddr < header->p_filesz)
            return header->p_offset + (address - header->p_vaddr);
    }
    return 0;
}

struct dynamic {
    size_t count;
    Elf64_Dyn entries[MAX_ENTRIES];
    /* File offset of the string table. */
    uint64_t strings;
};

static bool read_dynamic(int fd, struct dynamic *out)
{
    struct elf_file file = {.fd = fd};
    if (!read_headers(&file))
        return false;
    const Elf64_Phdr *dynamic = NULL;
    for (unsigned i = 0; i < file.count; i++)
        if (file.headers[i].p_type == PT_DYNAMIC)
            dynamic = file.headers + i;
    if (!dynamic || dynamic->p_filesz > sizeof out->entries ||
        !read_at(fd, out->entries, dynamic->p_filesz, dynamic->p_offset))
        return false;
    const size_t count = dynamic->p_filesz / sizeof(Elf64_Dyn);
    out->strings = 0;
    for (size_t i = 0; i < count; i++)
        if (out->entries[i].d_tag == DT_STRTAB)
            out->strings = offset_of(&file, out->entries[i].d_un.d_ptr);
    out->count = 0;
    while (out->count < count && out->entries[out->count].d_tag != DT_NULL)
        out->count++;
    return out->strings != 0;
}

/* Reads the string of the entry with index `entry`; false without one. A longer string is truncated. */
static bool read_string(int fd, const struct dynamic *dynamic, size_t entry, char *out, size_t size)
{
    memset(out, 0, size);
    return REAL(pread)(fd, out, size - 1, (off_t)(dynamic->strings + dynamic->entries[entry].d_un.d_val)) > 0;
}

void elf_needed(int fd, bool (*visit)(void *context, const char *name), void *context, char folders[PATH_SIZE])
{
    struct dynamic dynamic;
    folders[0] = 0;
    if (!read_dynamic(fd, &dynamic))
        return;
    for (size_t i = 0; i < dynamic.count && folders[0] == 0; i++) {
        const Elf64_Sxword tag = dynamic.entries[i].d_tag;
        if (tag == DT_RUNPATH || tag == DT_RPATH)
            read_string(fd, &dynamic, i, folders, PATH_SIZE);
    }
    for (size_t i = 0; i < dynamic.count; i++) {
        char name[LIBRARY_NAME_SIZE];
        if (dynamic.entries[i].d_tag == DT_NEEDED && read_string(fd, &dynamic, i, name, sizeof name) &&
            !visit(context, name))
            return;
    }
}
