/*
 * The row of the finding private-file.
 */

export const privateFile = {
  severity: 'warning',
  needs: ['check', 'WRITEs', 'accesses', 'peer accesses'],
  title: 'a peer writes to a private mapping of a file, which does not change the file',
  why: 'mmap(2): changes of a mapping with MAP_PRIVATE are not carried through to the file. A registration pins copies of its pages, so what peers WRITE is in the memory of the program alone: other processes that map the file, and who reads it later, never see it. The data of programs and libraries, which are private mappings of their files too, is not meant.',
  advice: 'map the file with MAP_SHARED, or anonymous memory if no file is meant',
} as const
