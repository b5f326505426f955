/*
 * The libraries that a library needs: the names in its dynamic section. The file is read and not mapped: if a mapped
 * file is truncated, the program gets SIGBUS.
 */
#define _GNU_SOURCE
#include "../shim.h"

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

void elf_needed(int fd, bool (*visit)(void *context, const char *name), void *context)
{
    struct elf_file file = {.fd = fd};
    if (!read_headers(&file))
        return;
    const Elf64_Phdr *dynamic = NULL;
    for (unsigned i = 0; i < file.count; i++)
        if (file.headers[i].p_type == PT_DYNAMIC)
            dynamic = file.headers + i;
    Elf64_Dyn entries[MAX_ENTRIES];
    if (!dynamic || dynamic->p_filesz > sizeof entries || !read_at(fd, entries, dynamic->p_filesz, dynamic->p_offset))
        return;
    const size_t count = dynamic->p_filesz / sizeof(Elf64_Dyn);
    uint64_t names = 0;
    for (size_t i = 0; i < count; i++)
        if (entries[i].d_tag == DT_STRTAB)
            names = offset_of(&file, entries[i].d_un.d_ptr);
    for (size_t i = 0; names != 0 && i < count && entries[i].d_tag != DT_NULL; i++) {
        char name[LIBRARY_NAME_SIZE] = "";
        if (entries[i].d_tag != DT_NEEDED)
            continue;
        if (REAL(pread)(fd, name, sizeof name - 1, (off_t)(names + entries[i].d_un.d_val)) > 0 && !visit(context, name))
            return;
    }
}
