/** Dark or light, before anything is drawn: what the visitor chose here before, otherwise what the system says. No module, so that nothing flashes. */
{
  const KEY = 'ooblex-theme';
  const root = document.documentElement;
  const kept = () => {
    try {
      return localStorage.getItem(KEY);
    } catch {
      return null;
    }
  };
  if (['light', 'dark'].includes(kept())) root.dataset.theme = kept();

  addEventListener('DOMContentLoaded', () => {
    const button = document.querySelector('#theme');
    const system = matchMedia('(prefers-color-scheme: dark)');
    const isDark = () => (root.dataset.theme ?? (system.matches ? 'dark' : 'light')) === 'dark';
    const tell = () => {
      button.ariaPressed = String(isDark());
      document.querySelector('meta[name=theme-color]').content = isDark() ? '#0b0c10' : '#f5f3ee';
    };
    button.addEventListener('click', () => {
      root.dataset.theme = isDark() ? 'light' : 'dark';
      try {
        localStorage.setItem(KEY, root.dataset.theme);
      } catch {
        // A browser that keeps nothing forgets this, too.
      }
      tell();
      dispatchEvent(new Event('themechange'));
    });
    system.addEventListener('change', tell);
    tell();
  });
}
