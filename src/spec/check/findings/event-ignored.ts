/*
 * The row of the finding event-ignored.
 */

export const eventIgnored = {
  severity: 'warning',
  needs: ['check', 'invalidations'],
  title: 'a program goes on with what an event, or the end of a connection, has made invalid',
  why: "An index of the GID table may be empty, or another address's, after GID_CHANGE: an address that returns gets another index while queue pairs hold the old one. A refused call is reported if the program does not look for the address again. An address handle keeps the addresses, and on adapters the MAC, of the time when it was made: the finding is reported if it is still used a second after a change; it is a note for another MAC, which our devices find. After DEVICE_FATAL all calls on the device fail with EIO, after DEVICE_REMOVAL those of the identifier with ENXIO: the third is reported, of a device the third after 100 ms. A reply to an earlier request for a connection names a queue pair whose peer is gone, while the other end has connected a later one: an error. DISCONNECTED has a status: if it is not 0, nobody has answered DREQ. It is a warning if the peer is still connected when the identifier is destroyed, else a note.",
  advice: 'read the events, and look up or make anew what they are about',
  story: 'events',
  isStale: true,
} as const
