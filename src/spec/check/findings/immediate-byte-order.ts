/*
 * The row of the finding immediate-byte-order.
 */

export const immediateByteOrder = {
  severity: 'note',
  needs: ['check', 'ibv_post_send', 'preload'],
  title: 'immediate data looks as if it were in the byte order of the host',
  why: 'imm_data is in network byte order (__be32). A small number that was not converted by htonl is a multiple of 65536 for the receiver, and for machines of another byte order. The finding is a note because both ends may agree on it. It is an error if a receiver dies at a wild address after such a message, or if the program fails and nothing else was found.',
  advice: 'set imm_data to htonl(value), and read it by ntohl(wc.imm_data)',
  explainsFailure: true,
} as const
