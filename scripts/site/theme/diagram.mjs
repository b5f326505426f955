/*
 * A diagram in Mermaid's language, drawn in the browser in the page's colours. It is as wide as the text, and a click
 * or Enter gives it its own size. Without scripts its text is shown. Only pages with diagrams load Mermaid, which
 * scripts/site.mjs copies into the site.
 */
import { useData, withBase } from 'vitepress'
import { h, onMounted, ref, watch } from 'vue'

/** Mermaid needs a name for each drawing. */
let drawings = 0

export const Diagram = {
  /** The text, as encodeURIComponent has encoded it. */
  props: { code: { type: String, required: true } },
  setup(props) {
    const { isDark } = useData()
    const svg = ref('')
    const isLarge = ref(false)
    const text = decodeURIComponent(props.code)
    const draw = async () => {
      const { default: mermaid } = await import(/* @vite-ignore */ withBase('/mermaid/mermaid.esm.min.js'))
      mermaid.initialize({ startOnLoad: false, theme: isDark.value ? 'dark' : 'neutral' })
      svg.value = (await mermaid.render(`diagram-${++drawings}`, text)).svg
    }
    onMounted(() => watch(isDark, draw, { immediate: true }))
    const changeSize = () => {
      isLarge.value = !isLarge.value
    }
    return () =>
      svg.value === ''
        ? h('pre', { class: 'diagram' }, text)
        : h('div', {
            class: ['diagram', { large: isLarge.value }],
            tabindex: 0,
            onClick: changeSize,
            onKeydown: ({ key }) => key === 'Enter' && changeSize(),
            innerHTML: svg.value,
          })
  },
}
