/*
 * Finding context-inherited: a process uses or destroys a queue of a context that its parent has opened.
 */
import { EventKind } from '../../../spec/session.ts'
import type { Detector, DetectorServices } from '../detector.ts'

export const createInheritanceDetector = (services: DetectorServices): Detector => ({
  on: {
    usedInherited(event, owner) {
      const does = event.queue === EventKind.POLL ? 'polls' : 'posts to'
      services.report(
        'context-inherited',
        { ...event, action: 'used' },
        {
          text: `process ${event.program?.pid ?? '?'} ${does} ${owner.nameWithProgram}, whose context it inherited by fork`,
          objects: [owner],
        },
      )
    },
    destroyedInherited(event, qp) {
      services.report(
        'context-inherited',
        { ...event, action: 'destroyed' },
        {
          text: `process ${event.program?.pid ?? '?'}, a child, destroys ${qp.nameWithProgram}, whose context it inherited by fork: the parent loses it`,
          advice:
            'end the child by _exit, or exec, so that it does not run the clean-up of its parent (atexit, destructors)',
          objects: [qp],
        },
      )
    },
  },
})
