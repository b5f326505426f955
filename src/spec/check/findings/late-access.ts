/*
 * The rows of findings about accesses after their memory was of no use to peers any more.
 */

export const lateWrite = {
  severity: 'warning',
  needs: ['check', 'WRITEs', 'accesses', 'peer accesses'],
  title: 'a WRITE landed in bytes that were in use for something else by then',
  why: 'The owner has told a peer of bytes of its memory by a message (an rkey, an address and a length, `userdma help how-to/lent-memory`), and the WRITE of this peer lands after the owner has told the same bytes to the peer of another queue pair, which has written them since; or while the owner sends the bytes. So the later data is overwritten, or what is sent is mixed, without any error. It is told if the WRITE was under way before the other landed or the send was posted, also if its queue pair was destroyed meanwhile; or if both have written exactly the bytes of their messages, and between them the program of the late one got no message or data that could have told it of the other. Without such messages it is told if a program has written other data to the same bytes by another queue pair, which had not written there before, and that WRITE was complete when the first one landed: a retry. Equal data on two ways is no mistake. The finding has the stacks of the messages and of both requests.',
  advice:
    'before bytes are told to another peer, let the first confirm that it has given up, move its queue pair to ERR at the end that owns the bytes, or invalidate the key',
} as const

export const lateRead = {
  severity: 'note',
  needs: ['check', 'accesses', 'peer accesses'],
  title: 'a READ got other bytes than those that a message had told its peer',
  why: 'The owner has told a peer of bytes of its memory by a message, has changed the bytes, and has told of them again, before the READ for the first message came. So that READ gets what is meant for the second. Bytes are compared as they were at the fetch of the message and before the READ, if they are at most 64 KiB and no peer may have written them. It is a note because the peer may have wanted the newest bytes, and an error if the program fails and nothing else was found.',
  advice: 'let the peer confirm that it has given a request up before its bytes are used for another one',
  explainsFailure: true,
} as const
