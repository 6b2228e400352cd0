(async () => {
  try {
    if (typeof DecompressionStream === "undefined") throw new Error("this browser is too old");
    const data = JSON.parse(await unpack("data"));
    execute(await unpack("libraries"));
    drawTables(data);
    drawFigures(data);
    listenToView();
    addEventListener("beforeprint", preparePrint);
    addEventListener("afterprint", endPrint);
    document.documentElement.dataset.ready = "yes";
  } catch (error) {
    element("trouble").textContent = `Figures and the table of images cannot be shown: ${error.message}.`;
    element("trouble").hidden = false;
    throw error;
  }
})();
