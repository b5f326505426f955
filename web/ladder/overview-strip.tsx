/*
 * A strip with the packets of the whole session over time, lost and retransmitted ones marked. A click goes to its
 * time.
 */
import { useEffect, useRef } from 'preact/hooks'
import type { Traffic } from '../data/traffic.ts'
import { onThemeChange } from '../theme.ts'

interface StripProps {
  readonly traffic: Traffic
  readonly version: number
  /** The visible time, as parts of the whole. */
  readonly from: number
  readonly to: number
  /** `part`: of the session, from 0 to 1. */
  readonly onGo: (part: number) => void
}

const HEIGHT = 36

export const OverviewStrip = ({ traffic, version, from, to, onGo }: StripProps) => {
  const canvas = useRef<HTMLCanvasElement>(null)
  useEffect(() => {
    const element = canvas.current!
    const draw = (): void => {
      const ratio = devicePixelRatio
      const width = element.clientWidth
      element.width = width * ratio
      element.height = HEIGHT * ratio
      const context = element.getContext('2d')
      if (context === null || width === 0) return
      const style = getComputedStyle(element)
      const color = (name: string): string => style.getPropertyValue(name)
      context.scale(ratio, ratio)
      context.clearRect(0, 0, width, HEIGHT)
      const packets = traffic.values('packets')
      const lost = traffic.values('lost')
      const again = traffic.values('retransmitted')
      const count = Math.max(1, traffic.length)
      const highest = Math.log1p(Math.max(1, ...packets))
      const barWidth = Math.max(1, width / count)
      context.fillStyle = color('--data')
      for (let i = 0; i < packets.length; i++) {
        const height = (Math.log1p(packets[i]!) / highest) * (HEIGHT - 10)
        if (height > 0) context.fillRect((i / count) * width, HEIGHT - height, barWidth, height)
      }
      for (const [values, name] of [
        [again, '--retry'],
        [lost, '--bad'],
      ] as const) {
        context.fillStyle = color(name)
        for (let i = 0; i < values.length; i++)
          if (values[i]! > 0) context.fillRect((i / count) * width, 0, Math.max(2, barWidth), name === '--bad' ? 6 : 3)
      }
      context.fillStyle = color('--text')
      context.globalAlpha = 0.14
      context.fillRect(from * width, 0, Math.max(2, (to - from) * width), HEIGHT)
    }
    draw()
    const observer = new ResizeObserver(draw)
    observer.observe(element)
    const removeThemes = onThemeChange(draw)
    return () => {
      observer.disconnect()
      removeThemes()
    }
  }, [traffic, version, from, to])
  return (
    <canvas
      ref={canvas}
      class="strip"
      role="img"
      aria-label={`Packets over time: ${traffic.totals.packets}, of which ${traffic.totals.retransmitted} were sent again and ${traffic.totals.lost} lost`}
      onClick={event => onGo(event.offsetX / Math.max(1, event.currentTarget.clientWidth))}
    />
  )
}
